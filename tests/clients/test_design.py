"""`moss-ttsd design`: a voice from its description on one server, kept on another, over the real endpoints of both."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_endpoints import serving, three_events
from fake_manager import FakeManager, event, frames_of
from typer.testing import CliRunner, Result

from sglang_moss.clients import MossClient
from sglang_moss.clients.cli import app
from sglang_moss.clients.commands import design as command
from sglang_moss.clients.design import SAMPLE_TEXT, SAMPLE_TEXT_CHINESE

pytestmark = pytest.mark.wide

SPOKEN = np.concatenate([frames_of(level) for level in (100, 200, 300)])  # by `three_events`
DESCRIPTION = "an old sailor, hoarse, amused"


class Servers:
    """One that makes voices, and one that keeps them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self.voice_url, self.voice = self.start("voice")
        self.store_url, self.store = self.start("ttsd")

    def start(self, profile: str, script: Any = three_events) -> tuple[str, FakeManager]:
        client, manager = self._stack.enter_context(serving(script, self._folder / profile, profile=profile))
        return str(client.base_url), manager

    def design(self, *options: str, name: str = "sailor", stdin: str | None = None, **urls: str) -> Result:
        servers = ["--voice-url", urls.get("voice_url", self.voice_url)]
        servers += ["--store-url", urls.get("store_url", self.store_url)]
        return CliRunner().invoke(app, ["design", DESCRIPTION, "--name", name, *servers, *options], input=stdin)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack, tmp_path)


def test_a_voice_is_made_and_kept_with_its_transcript(servers: Servers, tmp_path: Path):
    out = tmp_path / "sailor.wav"
    result = servers.design("--text", "Ahoy there!", "--seed", "5", "--temperature", "0.5", "-o", str(out))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"0.72 s, seed 5: {out}"
    [asked] = servers.voice.requests
    assert asked.text == "${normalize_text}Ahoy there!"
    assert asked.audio_data is None
    assert asked.sampling_params["custom_params"]["instruction"] == DESCRIPTION
    assert (asked.sampling_params["sampling_seed"], asked.sampling_params["temperature"]) == (5, 0.5)
    with MossClient(servers.store_url) as client:
        kept = client.voice("sailor")
        samples, _rate = soundfile.read(io.BytesIO(client.voice_clip("sailor")), dtype="int16")
        list(client.speech("[S1] Off we go.", {1: "sailor"}))
    assert kept.text == "Ahoy there!"
    np.testing.assert_array_equal(samples, SPOKEN)
    np.testing.assert_array_equal(soundfile.read(out, dtype="int16")[0], SPOKEN)
    assert servers.store.requests[0].text == "${normalize_text}[S1]Ahoy there!Off we go."


def test_it_says_something_of_its_own_in_the_descriptions_language(servers: Servers):
    assert servers.design().exit_code == 0
    assert servers.voice.requests[0].text == "${normalize_text}" + SAMPLE_TEXT
    args = ["--name", "b", "--voice-url", servers.voice_url, "--store-url", servers.store_url]
    assert CliRunner().invoke(app, ["design", "疲惫沙哑的老年声音", *args]).exit_code == 0
    assert servers.voice.requests[1].text == "${normalize_text}" + SAMPLE_TEXT_CHINESE


def test_a_name_that_is_taken_is_refused_before_the_work_and_replaced_on_request(servers: Servers):
    assert servers.design("--text", "One.").exit_code == 0
    refused = servers.design("--text", "Two.")
    assert refused.exit_code == 1
    assert "a voice sailor is kept there already; pass --replace" in refused.stderr
    assert len(servers.voice.requests) == 1
    assert servers.design("--text", "Two.", "--replace").exit_code == 0
    with MossClient(servers.store_url) as client:
        assert client.voice("sailor").text == "Two."


@pytest.mark.parametrize(
    ("swapped", "message"),
    [
        ("voice_url", "--voice-url is a server of MOSS-TTSD, which makes no voice from a description"),
        ("store_url", "--store-url is a server of MOSS-VoiceGenerator, which speaks with no stored voice"),
    ],
)
def test_servers_of_other_models_are_told_apart(servers: Servers, swapped: str, message: str):
    other = servers.store_url if swapped == "voice_url" else servers.voice_url
    result = servers.design(**{swapped: other})
    assert result.exit_code == 1
    assert message in result.stderr
    assert not servers.voice.requests
    assert not servers.store.requests


def test_a_speech_that_was_cut_is_not_kept(servers: Servers):
    url, _manager = servers.start("voice", lambda _request: [event(frames_of(100), {"type": "length"})])
    result = servers.design("--seed", "9", voice_url=url)
    assert result.exit_code == 1
    assert "did not come to the end of its text (seed 9); try another --seed" in result.stderr
    with MossClient(servers.store_url) as client:
        assert client.voices() == []


def test_somebody_at_a_terminal_is_asked_and_may_have_another_one(servers: Servers, monkeypatch: pytest.MonkeyPatch):
    answers = iter("ak")
    monkeypatch.setattr(command, "_is_asked", lambda: True)
    monkeypatch.setattr(command, "_asked", lambda _name: next(answers))
    assert servers.design("--seed", "5").exit_code == 0
    seeds = [request.sampling_params["sampling_seed"] for request in servers.voice.requests]
    assert len(seeds) == 2
    assert seeds[0] == 5 != seeds[1]
    answers = iter("q")
    assert servers.design(name="other").exit_code == 1
    with MossClient(servers.store_url) as client:
        assert [voice.name for voice in client.voices()] == ["sailor"]


@pytest.mark.parametrize("output", ["out.mp3", "nowhere/out.wav"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(servers: Servers, tmp_path: Path, output: str):
    result = servers.design("-o", str(tmp_path / output))
    assert result.exit_code == 1
    assert "name a .wav file in a folder that is there" in result.stderr
    assert not servers.voice.requests


def test_a_client_is_told_which_model_is_served(servers: Servers):
    with MossClient(servers.voice_url) as client:
        voice = client.profile()
    assert (voice.name, voice.model, voice.max_references) == ("voice", "MOSS-VoiceGenerator", 0)
    assert voice.required == ("text", "instruction")
    with MossClient(servers.store_url) as client:
        assert client.profile().name == "ttsd"


def test_say_describes_sounds_and_sends_a_language(servers: Servers, tmp_path: Path):
    sound_url, sound = servers.start("sound")
    out = ["-o", str(tmp_path / "out.wav")]
    run = CliRunner().invoke
    assert run(app, ["say", "rain on a roof", "--duration", "2", *out, "--url", sound_url]).exit_code == 0
    assert sound.requests[0].sampling_params["custom_params"] == {
        "ambient_sound": "rain on a roof",
        "tokens": 25,
        "mode": "generation",
        "strict": True,
    }
    tts_url, tts = servers.start("tts")
    options = ["--language", "French", "--ambient-sound", "rain", "--instruction", "calm"]
    assert run(app, ["say", "Bonjour", *options, *out, "--url", tts_url]).exit_code == 0
    custom = tts.requests[0].sampling_params["custom_params"]
    assert {"language": "French", "ambient_sound": "rain", "instruction": "calm"}.items() <= custom.items()
    refused = run(app, ["say", "[S1] Hi.", *out, "--url", sound_url])
    assert refused.exit_code == 1
    assert "MOSS-SoundEffect has no speakers, got [S1]" in refused.stderr
