"""Which checkpoints `make demo` and `make serve` take, and which voices."""

import shutil
from pathlib import Path

import pytest
from golden_data import GOLDEN
from sound_files import tone_file

from sglang_moss.checkpoint import is_fused
from sglang_moss.clients.demo import VOICES as DEMO_VOICES
from sglang_moss.clients.small_voice import VOICES, Clip, NoSmallVoice, clips_in, default_pair
from sglang_moss.server.speech.starter_voices import starters_folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint that is there; the weights are the tests' own."""
    for name in ("ttsd", "codec"):
        shutil.copytree(GOLDEN / name, tmp_path / "checkpoint" / name)
    return tmp_path / "checkpoint"


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    folder.mkdir()
    for name, audio_format in (("slt.wav", "WAV"), ("rms.flac", "FLAC")):
        path = folder / name
        path.write_bytes(tone_file(1.5, audio_format=audio_format))
        path.with_suffix(".txt").write_text(f"This is {path.stem}.\n")
    return folder


def test_the_small_voice_is_taken_where_it_is(checkpoint: Path, voices: Path, tmp_path: Path):
    pair = default_pair(checkpoint, voices)
    assert pair.has_learnt
    assert pair.language_model == checkpoint / "ttsd"
    assert pair.clips == (
        Clip("rms", voices / "rms.flac", "This is rms."),
        Clip("slt", voices / "slt.wav", "This is slt."),
    )
    for _ in range(2):  # again in the place of the first
        assert "MOSS-TTSD" in pair.fuse(tmp_path / "fused")
    assert is_fused(str(tmp_path / "fused"))


def test_its_voices_are_those_that_every_server_has(checkpoint: Path):
    assert default_pair(checkpoint).clips == clips_in(VOICES)
    assert starters_folder(None) == VOICES
    assert set(DEMO_VOICES) <= {clip.name for clip in clips_in(VOICES)}


def test_random_weights_are_taken_where_there_is_none(tmp_path: Path):
    pair = default_pair(tmp_path / "nowhere")
    assert not pair.has_learnt
    assert (pair.language_model, pair.codec, pair.clips) == (GOLDEN / "ttsd", GOLDEN / "codec", ())


def test_half_of_it_is_an_error_and_never_babble(checkpoint: Path, voices: Path, tmp_path: Path):
    (voices / "slt.txt").unlink()
    with pytest.raises(NoSmallVoice, match=r"slt.txt is missing"):
        default_pair(checkpoint, voices)
    shutil.rmtree(checkpoint / "codec")
    with pytest.raises(NoSmallVoice):
        default_pair(checkpoint)
    with pytest.raises(NoSmallVoice, match="whole checkout"):
        default_pair(tmp_path / "nowhere", golden=tmp_path / "no golden data either")
    with pytest.raises(NoSmallVoice, match="holds no clip"):
        clips_in(checkpoint)
