"""Which checkpoints `make demo` and `make serve` take, and what is stored beside them."""

import shutil
from pathlib import Path

import pytest
from golden_data import GOLDEN
from judged_speech import SPEECH
from sound_files import tone_file

from sglang_moss.checkpoint import is_fused
from sglang_moss.clients.small_voice import Clip, NoSmallVoice, clips_in, default_pair
from sglang_moss.server.speech.voice_store import VoiceStore


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose checkpoint and voices are there; the weights are the tests' own."""
    for name in ("ttsd", "codec"):
        shutil.copytree(GOLDEN / name, tmp_path / "recipe" / "checkpoint" / name)
    voices = tmp_path / "recipe" / "voices"
    voices.mkdir()
    for name in ("slt", "rms"):
        (voices / f"{name}.wav").write_bytes(tone_file(1.5))
        (voices / f"{name}.txt").write_text(f"This is {name}.\n")
    return tmp_path / "recipe"


def test_the_small_voice_is_taken_where_it_is(recipe: Path, tmp_path: Path):
    pair = default_pair(recipe)
    assert pair.has_learnt
    assert pair.language_model == recipe / "checkpoint" / "ttsd"
    assert pair.clips[0] == Clip("rms", recipe / "voices" / "rms.wav", "This is rms.")
    for _ in range(2):  # again in the place of the first
        assert "MOSS-TTSD" in pair.fuse(tmp_path / "fused")
    assert is_fused(str(tmp_path / "fused"))


def test_its_voices_are_stored_and_others_stay(recipe: Path, tmp_path: Path):
    store = VoiceStore(tmp_path / "voices", 10)
    store.add("alice", b"hers", None, 1.0)
    store.add("rms", b"an earlier clip", None, 9.0)
    default_pair(recipe).store_voices(tmp_path / "voices")
    assert [(voice.name, voice.text, voice.seconds) for voice in store.list_voices()] == [
        ("alice", None, 1.0),
        ("rms", "This is rms.", 1.5),
        ("slt", "This is slt.", 1.5),
    ]
    assert store.load("rms")[1] == (recipe / "voices" / "rms.wav").read_bytes()


def test_random_weights_are_taken_where_there_is_none(tmp_path: Path):
    pair = default_pair(tmp_path / "nowhere")
    assert not pair.has_learnt
    assert (pair.language_model, pair.codec, pair.clips) == (GOLDEN / "ttsd", GOLDEN / "codec", ())
    pair.store_voices(tmp_path / "voices")
    assert not (tmp_path / "voices").exists()


def test_half_of_it_is_an_error_and_never_babble(recipe: Path, tmp_path: Path):
    (recipe / "voices" / "slt.txt").unlink()
    with pytest.raises(NoSmallVoice, match=r"slt.txt is missing"):
        default_pair(recipe)
    shutil.rmtree(recipe / "checkpoint" / "codec")
    with pytest.raises(NoSmallVoice):
        default_pair(recipe)
    with pytest.raises(NoSmallVoice, match="whole checkout"):
        default_pair(tmp_path / "nowhere", tmp_path / "no golden data either")
    with pytest.raises(NoSmallVoice, match="holds no clip"):
        clips_in(SPEECH)  # FLAC
