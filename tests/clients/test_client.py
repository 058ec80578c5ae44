"""The Python client: what it sends, what it makes of the answers, and how it fails."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from fake_speech_server import FakeServer, fake_speech_server, speech_answer, tone_wav
from hypothesis import given
from hypothesis import strategies as st
from nobody import nobody

from sglang_moss.clients import (
    Mode,
    MossClient,
    Reference,
    ServerRefused,
    ServerUnreachable,
    Settings,
    Speech,
    UnusableAnswer,
)
from sglang_moss.clients.request import request_body
from sglang_moss.request.profile import TTS
from sglang_moss.request.prompt import MODES
from sglang_moss.request.script import read_script
from sglang_moss.request.settings import RequestOptions
from sglang_moss.request.text import normalize_text, prefix_prompt_texts

TRANSCRIBED = [Reference(b"one", "We met."), Reference(b"two", "[S2] 今天。")]


EXAMPLE = Path(__file__).parents[2] / "examples" / "stream.py"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_speech_server() as fake:
        yield fake


def test_every_setting_means_to_the_server_what_its_name_says():
    settings = Settings(
        max_seconds=2.0,
        exact_length=True,
        seed=11,
        temperature=0.5,
        top_p=0.7,
        top_k=3,
        repetition_penalty=1.2,
        text_temperature=0.0,
        text_top_p=0.6,
        text_top_k=-1,
        return_codes=True,
        chunk_frames=4,
        first_frames=2,
        timings=True,
        mode="voice_clone",
    )
    options = RequestOptions.parse(request_body("[S1] Hi.", [Reference(b"a")], settings)["sampling_params"])
    assert (options.max_frames, options.ignore_eos, options.seed) == (25, True, 11)
    assert (options.audio.temperature, options.audio.top_p, options.audio.top_k) == (0.5, 0.7, 3)
    assert (options.text.temperature, options.text.top_p, options.text.top_k) == (0.0, 0.6, -1)
    assert (options.repetition_penalty, options.return_codes, options.mode) == (1.2, True, "voice_clone")
    assert (options.chunk_frames, options.first_frames, options.timings) == (4, 2, True)


def test_settings_left_open_are_left_to_the_server():
    open_settings = Settings(seed=None, temperature=None, max_seconds=None, mode=None)
    assert request_body("[S1] Hi.", [], open_settings) == {"text": "[S1] Hi.", "sampling_params": {}}


def test_the_client_knows_the_modes_of_the_server():
    assert get_args(Mode) == MODES


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="no such setting: temprature"):
        request_body("[S1] Hi.", [], {"temprature": 1.0})  # type: ignore[typeddict-unknown-key]


@given(frames=st.integers(1, 100_000))
def test_seconds_of_whole_frames_become_those_frames(frames: int):
    params = request_body("[S1] Hi.", [], {"max_seconds": frames * 0.08})["sampling_params"]
    assert params["max_new_tokens"] == frames


@pytest.mark.parametrize(("seconds", "frames"), [(0.08, 1), (0.159, 1), (0.24, 3), (1.0, 12), (3600.0, 45_000)])
def test_max_seconds_is_never_exceeded(seconds: float, frames: int):
    assert request_body("[S1] Hi.", [], {"max_seconds": seconds})["sampling_params"]["max_new_tokens"] == frames


@pytest.mark.parametrize("seconds", [0.0, 0.079, -1.0, float("nan"), float("inf")])
def test_a_length_below_one_frame_or_without_end_is_refused(seconds: float):
    with pytest.raises(ValueError, match=r"max_seconds must be a number of at least 0\.08"):
        request_body("[S1] Hi.", [], {"max_seconds": seconds})


def test_transcripts_stand_in_front_of_the_text_in_the_order_of_the_references():
    body = request_body("[S2] Go on. [S1] Yes.", TRANSCRIBED, {})
    assert body["text"] == prefix_prompt_texts("[S2] Go on. [S1] Yes.", {1: "We met.", 2: "[S2] 今天。"})
    assert body["text"] == "[S1]We met.[S2]今天。Go on.[S1]Yes."
    assert body["sampling_params"]["custom_params"]["mode"] == "voice_clone_and_continuation"


@pytest.mark.parametrize(
    "directives", ["${instruction:Slowly}", "${ambient_sound:rain}", "${instruction:}${ambient_sound:x}"]
)
def test_directives_stay_in_front_of_the_transcripts(directives: str):
    script = read_script(request_body(directives + "[S1] Hi.", TRANSCRIBED, {})["text"])
    alone = read_script(directives + "[S1] Hi.")
    assert (script.instruction, script.ambient_sound) == (alone.instruction, alone.ambient_sound)
    assert script.text == prefix_prompt_texts("[S1] Hi.", {1: "We met.", 2: "[S2] 今天。"})


def test_the_server_normalises_transcripts_and_text_together():
    text = request_body("${normalize_text}${instruction:Slowly}[1] Haha - no...", TRANSCRIBED, {})["text"]
    script = read_script(text)
    assert script.instruction == "Slowly"
    assert script.text == normalize_text(prefix_prompt_texts("[1] Haha - no...", {1: "We met.", 2: "[S2] 今天。"}))


def test_fields_of_the_prompt_are_sent_apart_from_the_text():
    fields: Settings = {
        "instruction": "calm",
        "ambient_sound": "rain",
        "language": "French",
        "duration_seconds": 2.0,
        "quality": "q",
        "sound_event": "e",
    }
    body = request_body("Bonjour.", [], fields)
    options = RequestOptions.parse(body["sampling_params"], TTS)
    assert body["text"] == "Bonjour."
    expected = {name: value for name, value in fields.items() if name != "duration_seconds"}
    assert options.fields == {**expected, "tokens": 25}
    with pytest.raises(ValueError, match="duration_seconds must be a number above 0"):
        request_body("Bonjour.", [], {"duration_seconds": 0.0})


def test_a_transcript_of_a_text_without_tags_has_none_either():
    settings: Settings = {"speaker_tags": False}
    body = request_body("${token:25}${instruction:calm}Go on.", [Reference(b"a", "We met.")], settings)
    assert body["text"] == "${token:25}${instruction:calm}We met. Go on."
    body = request_body("${normalize_text}走吧。", [Reference(b"a", "我们见过。")], settings)
    assert body["text"] == "${normalize_text}我们见过。走吧。"


def test_references_without_transcripts_are_cloned_and_the_text_is_left_alone():
    body = request_body("[S1] Hi.", [Reference(b"one"), Reference(b"two")], {})
    assert body["text"] == "[S1] Hi."
    assert body["sampling_params"] == {"custom_params": {"mode": "voice_clone"}}


def test_a_mode_that_does_not_continue_speaks_no_transcript():
    assert request_body("[S1] Hi.", TRANSCRIBED, {"mode": "voice_clone"})["text"] == "[S1] Hi."


def test_a_continuing_mode_without_transcripts_takes_them_from_the_text():
    body = request_body("[S1] We met. Hi.", [Reference(b"one")], {"mode": "continuation"})
    assert body["text"] == "[S1] We met. Hi."
    assert body["sampling_params"]["custom_params"]["mode"] == "continuation"


def test_a_missing_transcript_among_others_is_refused():
    with pytest.raises(ValueError, match="reference 2 has no transcript"):
        request_body("[S1] Hi.", [Reference(b"one", "a"), Reference(b"two"), Reference(b"three", "c")], {})


def test_references_travel_as_base64_and_urls_as_they_are(tmp_path: Path):
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"clip")
    audio = [b"clip", clip, str(clip), "https://example.org/a.wav", "data:audio/wav;base64,Y2xpcA=="]
    sent = request_body("[S1] Hi.", [Reference(a) for a in audio], {})["audio_data"]
    assert sent == [base64.b64encode(b"clip").decode()] * 3 + audio[3:]


def test_a_reference_that_is_not_there_is_an_error_before_anything_is_sent(server: FakeServer, tmp_path: Path):
    with MossClient(server.url) as client, pytest.raises(FileNotFoundError):
        client.generate("[S1] Hi.", [Reference(tmp_path / "none.wav")])
    assert server.bodies == []


def test_speech_is_the_wav_of_the_answer_with_its_lengths(server: FakeServer):
    codes = [[1, 2], [3, 4], [5, 6]]
    server.answer = json.dumps(speech_answer(3, "length", audio_codes=codes)).encode()
    with MossClient(server.url) as client:
        speech = client.generate("[S1] Hi.", return_codes=True)
    assert speech.wav == tone_wav(3 * 1_920)
    assert (speech.sample_rate, speech.seconds, speech.frames) == (24_000, 0.24, 3)
    assert (speech.finish_reason, speech.codes, speech.meta["sampling_seed"]) == ("length", codes, 7)
    assert server.bodies[0]["sampling_params"] == {"custom_params": {"return_codes": True}}


@pytest.mark.parametrize("suffix", ["", "/"])
def test_a_server_may_stand_below_a_path(server: FakeServer, suffix: str):
    with MossClient(server.url + "/tts" + suffix) as client:
        client.generate("[S1] Hi.")
    assert server.paths == ["/tts/generate"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "text is missing"}}', "text is missing"),
        ('{"error": "Unauthorized"}', "Unauthorized"),
        ('{"object": "error", "message": "no\\n  such field"}', "no such field"),
        ('{"detail": "Not Found"}', "Not Found"),
        ("<html>\nBad gateway", "<html> Bad gateway"),
        ('{"detail": [1]}', '{"detail": [1]}'),
        ("", "Service Unavailable"),
        ("x" * 401, "x" * 400 + " ..."),
    ],
)
def test_a_refusal_carries_status_and_message_in_one_line(server: FakeServer, body: str, message: str):
    server.status, server.answer = 503, body.encode()
    with MossClient(server.url) as client, pytest.raises(ServerRefused) as caught:
        client.generate("[S1] Hi.")
    assert (caught.value.status, caught.value.message) == (503, message)
    assert str(caught.value) == f"HTTP 503: {message}"


@pytest.mark.parametrize(
    "answer",
    [
        b"not JSON",
        b'"text"',
        b"[]",
        b'{"text": "hello", "meta_info": {"finish_reason": {"type": "stop"}}}',
        b'{"text": "", "meta_info": {"audio_frames": 1, "finish_reason": {"type": "stop"}}}',
        b'{"text": "@@", "meta_info": {"audio_frames": 1, "finish_reason": {"type": "stop"}}}',
        b'{"text": "aGVsbG8=", "meta_info": {"audio_frames": 1, "finish_reason": {"type": "stop"}}}',
    ],
)
def test_an_answer_without_speech_is_an_error(server: FakeServer, answer: bytes):
    server.answer = answer
    with MossClient(server.url) as client, pytest.raises(UnusableAnswer):
        client.generate("[S1] Hi.")


def test_a_cut_wav_is_an_error():
    answer = speech_answer(3)
    answer["text"] = base64.b64encode(tone_wav(1_920)[:30]).decode()
    with pytest.raises(UnusableAnswer):
        Speech.from_answer(answer)


def test_no_server_is_unreachable():
    with nobody() as url, MossClient(url, retries=0) as client, pytest.raises(ServerUnreachable, match=url):
        client.generate("[S1] Hi.")


def test_an_answer_that_does_not_come_in_time_is_unreachable(server: FakeServer):
    server.waits = True
    with MossClient(server.url, timeout_s=0.1) as client, pytest.raises(ServerUnreachable):
        client.generate("[S1] Hi.")


def test_an_answer_that_breaks_off_is_unreachable(server: FakeServer):
    server.announced_bytes = len(server.answer) + 1
    with MossClient(server.url, retries=0) as client, pytest.raises(ServerUnreachable):
        client.generate("[S1] Hi.")


def test_the_key_travels_as_a_bearer_token(server: FakeServer):
    with MossClient(server.url, api_key="secret\n") as client:
        client.generate("[S1] Hi.")
    with MossClient(server.url) as client:
        client.generate("[S1] Hi.")
    assert [headers.get("authorization") for headers in server.headers] == ["Bearer secret", None]


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel", "  "])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(key: str):
    with pytest.raises(ValueError, match="API key must be printable ASCII") as caught:
        MossClient(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:30000", "localhost:30000", "ftp://a", "http://", "http://a:b:c"])
def test_what_is_no_url_of_a_server_is_refused(url: str):
    with pytest.raises(ValueError, match="the server's URL must be like"):
        MossClient(url)


def test_a_server_on_this_machine_is_not_asked_through_a_proxy(server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with nobody() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        with MossClient(server.url) as client:
            assert client.generate("[S1] Hi.").frames == 5


def test_importing_the_clients_loads_neither_torch_nor_sglang():
    code = (
        "import sys, sglang_moss.clients, sglang_moss.clients.cli, sglang_moss.clients.local_server\n"
        "print({'torch', 'sglang', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_example_that_streams_spoils_no_file_when_there_is_no_server(tmp_path: Path):
    out = tmp_path / "out.wav"
    out.write_bytes(b"before")
    command = [sys.executable, str(EXAMPLE), str(out)]
    with nobody() as url:
        done = subprocess.run(
            command, env=os.environ | {"MOSS_URL": url}, capture_output=True, text=True, timeout=240, check=False
        )
    assert (done.returncode, out.read_bytes()) == (1, b"before")
    assert done.stderr.startswith(f"error: {url}: ")
