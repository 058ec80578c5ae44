"""What the page heard, as files of every format: the same sound, within bounds, for who has the key."""

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from fake_endpoints import serving, three_events
from page_browser import served_page
from sound_files import RATE, best_match, decoded

from sglang_moss.server.page.encode import MEDIA_TYPES

pytestmark = pytest.mark.wide

TONES = np.rint(6000 * np.sin(np.arange(2 * RATE) * 0.06) * np.sin(np.arange(2 * RATE) * 0.0004)).astype("<i2")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(three_events, tmp_path_factory.mktemp("served")) as (opened, _):
        yield opened


@pytest.mark.parametrize("audio_format", MEDIA_TYPES)
def test_a_file_sounds_as_what_was_sent(client: httpx.Client, audio_format: str):
    answer = client.post("/page/encode", params={"format": audio_format, "rate": RATE}, content=TONES.tobytes())
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("audio/")
    heard = decoded(audio_format, answer.content, RATE)
    if audio_format in ("wav", "flac"):
        np.testing.assert_array_equal(heard, TONES)
        assert soundfile.info(io.BytesIO(answer.content)).frames == len(TONES)
    else:
        assert len(TONES) - 32 <= len(heard) <= len(TONES) + 0.15 * RATE
        assert best_match(heard, TONES) > 0.98


@pytest.mark.parametrize(
    ("params", "body", "said"),
    [
        ({"format": "exe", "rate": "24000"}, b"\0\0", "format: one of wav"),
        ({"rate": "24000"}, b"\0\0", "format: one of wav"),
        ({"format": "mp3", "rate": "1e9"}, b"\0\0", "rate: of the samples"),
        ({"format": "mp3", "rate": "96000"}, b"\0\0", "rate: of the samples"),
        ({"format": "mp3", "rate": "24000"}, b"\0\0\0", "got 3 bytes"),
        ({"format": "mp3", "rate": "24000"}, b"", "got 0 bytes"),
    ],
)
def test_what_is_no_sound_is_refused(client: httpx.Client, params: dict[str, str], body: bytes, said: str):
    answer = client.post("/page/encode", params=params, content=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_body_is_bounded_as_that_of_a_speech(tmp_path: Path):
    with serving(three_events, tmp_path, max_request_bytes=10_000) as (client, _):
        params = {"format": "flac", "rate": RATE}
        assert client.post("/page/encode", params=params, content=bytes(10_000)).status_code == 200
        assert client.post("/page/encode", params=params, content=bytes(10_002)).status_code == 413


def test_it_needs_the_key(tmp_path: Path):
    with served_page(lambda _: [], tmp_path, api_key="secret") as (address, _):
        ask = f"{address}page/encode?format=flac&rate=24000"
        assert httpx.post(ask, content=b"\0\0", timeout=60).status_code == 401
        key = {"Authorization": "Bearer secret"}
        assert httpx.post(ask, content=b"\0\0", headers=key, timeout=60).status_code == 200
