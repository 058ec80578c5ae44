"""Files that the client writes beside the answers that the server writes."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sglang_moss.clients import audio_file
from sglang_moss.clients.audio_file import AudioFile
from sglang_moss.server.speech.encoding import make_encoder

RATE = 24_000


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-6_000, 6_000, n_samples).astype(np.int16)


def written(path: Path, pcm: np.ndarray, rate: int = RATE) -> bytes:
    with AudioFile(path, rate) as file:
        for start in range(0, len(pcm), 1_920):
            file.write(pcm[start : start + 1_920].tobytes())
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["mp3", "opus", "aac", "flac"])
def test_a_file_is_as_long_as_the_answer_in_its_format(tmp_path: Path, suffix: Any):
    """Both take the same bit rate; what is left are tags, and how often a page of Ogg ends."""
    pcm = noise(10 * RATE)
    encoder = make_encoder(suffix, RATE)
    answer = encoder.encode(pcm) + encoder.finish()
    assert len(written(tmp_path / f"out.{suffix}", pcm)) == pytest.approx(len(answer), rel=0.05)


def test_ctrl_c_while_a_file_is_opened_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def opened(target: str, *_: Any, **_options: Any) -> None:
        Path(target).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(audio_file, "FileEncoder", opened)
    with pytest.raises(KeyboardInterrupt):
        AudioFile(tmp_path / "out.wav", RATE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["mp3", "opus", "m4a"])
def test_a_sample_rate_that_the_codec_does_not_know_is_raised_to_one_it_knows(tmp_path: Path, suffix: str):
    path = tmp_path / f"out.{suffix}"
    written(path, noise(31_000), 31_000)
    with av.open(str(path)) as file:
        assert file.streams.audio[0].rate in (32_000, 48_000)
        seconds = sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))
    assert 1 <= seconds < 1.15
