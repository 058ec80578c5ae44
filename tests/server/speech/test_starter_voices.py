"""Voices that come with the server: listed, spoken with, and left as they are."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fake_endpoints import serving, three_events
from sound_files import tone_file

import sglang_moss.server.speech.starter_voices as module
from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.clients.small_voice import RECIPE, clips_in
from sglang_moss.server.speech.starter_voices import read_starters, starters_folder

pytestmark = pytest.mark.wide

VOICES = "/v1/audio/voices"


@pytest.fixture
def starters(tmp_path: Path) -> Path:
    folder = tmp_path / "starters"
    folder.mkdir()
    (folder / "Heart.wav").write_bytes(tone_file(1.5))
    (folder / "Heart.txt").write_text("I come\nwith the server.\n")
    (folder / "mute.flac").write_bytes(tone_file(2, audio_format="FLAC"))
    (folder / "README.md").write_text("Not a voice.")
    return folder


@pytest.fixture
def client(tmp_path: Path, starters: Path) -> Iterator[httpx.Client]:
    options: Any = {"starter_voices": str(starters), "max_voices": 1, "voice_alias": ["alloy=heart"]}
    with serving(three_events, tmp_path, **options) as (opened, _):
        yield opened


def listed(client: httpx.Client) -> list[tuple[str, str | None, bool]]:
    return [(voice["name"], voice["text"], voice["starter"]) for voice in client.get(VOICES).json()["data"]]


def test_they_are_listed_beside_stored_ones_and_take_none_of_their_room(client: httpx.Client):
    assert listed(client) == [("Heart", "I come with the server.", True), ("mute", None, True)]
    files = {"audio": ("a.wav", tone_file(1))}
    assert client.post(VOICES, data={"name": "anna"}, files=files).json()["starter"] is False
    assert [name for name, _, _ in listed(client)] == ["anna", "Heart", "mute"]
    assert client.get(f"{VOICES}/heart").json()["seconds"] == 1.5
    assert client.get(f"{VOICES}/HEART/clip").content == tone_file(1.5)
    assert client.get(f"{VOICES}/nobody").status_code == 404


def test_they_speak_by_their_names_and_by_others(tmp_path: Path, starters: Path):
    options: Any = {"starter_voices": str(starters), "voice_alias": ["alloy=heart"]}
    with serving(three_events, tmp_path, **options) as (client, manager):
        for name in ("heart", "alloy"):
            assert client.post("/v1/audio/speech", json={"input": "Hi.", "voice": name}).status_code == 200
    assert [request.audio_data for request in manager.requests] == [[tone_file(1.5)]] * 2
    assert manager.requests[0].text == "${normalize_text}[S1]I come with the server.Hi."


def test_they_stay_and_make_way_for_a_stored_one(client: httpx.Client, starters: Path):
    refused = client.delete(f"{VOICES}/heart")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "starter_voice")
    files = {"audio": ("a.wav", tone_file(1))}
    assert client.put(f"{VOICES}/heart", data={"text": "Mine."}, files=files).status_code == 201
    assert listed(client)[0] == ("heart", "Mine.", False)
    assert client.get(f"{VOICES}/heart/clip").content == tone_file(1)
    assert client.delete(f"{VOICES}/heart").status_code == 200
    assert listed(client)[0] == ("Heart", "I come with the server.", True)
    assert sorted(path.name for path in starters.iterdir()) == ["Heart.txt", "Heart.wav", "README.md", "mute.flac"]


def test_what_cannot_be_a_voice_is_left_out(starters: Path, caplog: pytest.LogCaptureFixture):
    (starters / "noise.wav").write_bytes(b"no sound")
    (starters / "a'b.wav").write_bytes(tone_file(1))
    (starters / "default.wav").write_bytes(tone_file(1))
    (starters / "long.wav").write_bytes(tone_file(3))
    with caplog.at_level(logging.WARNING):
        found = read_starters(starters, ReferenceLimits(max_seconds=2.5))
    assert sorted(found) == ["heart", "mute"]
    assert len(caplog.records) == 4


def test_those_of_the_package_are_whole_and_have_transcripts(caplog: pytest.LogCaptureFixture):
    folder = starters_folder(None)
    assert folder is not None
    assert folder.is_relative_to(Path(module.__file__).parent)
    with caplog.at_level(logging.WARNING):
        voices = read_starters(folder, ReferenceLimits(max_seconds=30))
    assert not caplog.records
    assert sorted(voices) == ["awb", "heart", "rms", "slt"]
    licences = (folder / "LICENCES.md").read_text("utf-8")
    for name, voice in voices.items():
        assert f"`{name}`" in licences
        assert len((voice.about.text or "").split()) > 10
        samples, rate = soundfile.read(voice.clip, dtype="int16")
        assert (rate, samples.ndim) == (24_000, 1)
        assert 3 <= voice.about.seconds == len(samples) / rate <= 30
        loudest = np.abs(samples.astype(np.int32)).reshape(-1, 1920).max(axis=1)  # of each 80 ms
        assert 4_000 < loudest.max() < 32_000
        assert np.mean(loudest > 400) > 0.7
    assert read_starters(starters_folder("none"), ReferenceLimits()) == {}


def test_they_are_the_small_voices_own():
    made = RECIPE / "voices"
    for clip in clips_in(module._SHIPPED):
        assert clip.text == (made / f"{clip.name}.txt").read_text("utf-8").strip()
        samples, same = (soundfile.read(path, dtype="int16")[0] for path in (clip.path, made / f"{clip.name}.wav"))
        assert np.array_equal(samples, same)
