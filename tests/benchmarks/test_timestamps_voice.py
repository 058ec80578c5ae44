"""Turns are found where the letters of their frames are, and dialogues are what their kind says."""

import numpy as np
import pytest

from sglang_moss.benchmarks.judging.spoken_letters import Letters, spoken_times
from sglang_moss.benchmarks.timestamps_voice import KINDS, Kind, scripts_of
from sglang_moss.clients.small_voice import Clip as VoiceClip
from sglang_moss.clients.small_voice import default_pair

SENTENCES = ["One is here.", "Two went home.", "Three.", "Four are left, and wait.", "Five is the last."]


def frames_of(drawn: str) -> np.ndarray:
    """A character a frame; `_` is none."""
    return np.array([0 if c == "_" else Letters.of(c)[0] for c in drawn])


@pytest.mark.parametrize(
    ("drawn", "times"),
    [
        ("_hhii___yess__", [(0.08, 0.40), (0.64, 0.96)]),
        ("_hi__yyees_", [(0.08, 0.24), (0.40, 0.80)]),
        ("hhiiyyees", [(0.0, 0.32), (0.32, 0.72)]),  # nobody pauses
        ("_h_i___ye__s_", [(0.08, 0.32), (0.56, 0.96)]),  # silence inside of turns too
        ("_hx__es_", [(0.08, 0.24), (0.40, 0.56)]),  # another letter, and one that no frame has
    ],
)
def test_turns_are_where_their_letters_are(drawn: str, times: list[tuple[float, float]]):
    found = spoken_times(frames_of(drawn), [Letters.of("Hi."), Letters.of("Yes.")])
    assert found is not None
    assert np.allclose(found, times)


def test_a_turn_that_begins_as_the_one_before_ends_is_told_by_the_silence():
    found = spoken_times(frames_of("_sstopp___pest_"), [Letters.of("Stop"), Letters.of("Pest")])
    assert found is not None
    assert np.allclose(found, [(0.08, 0.56), (0.80, 1.12)])


@pytest.mark.parametrize("drawn", ["____", "_one_", "_one___three_"])
def test_nothing_is_told_of_a_script_with_words_left_out(drawn: str):
    turns = ["one", "two and then some more", "three"]
    assert spoken_times(frames_of(drawn), [Letters.of(turn) for turn in turns]) is None


def test_codes_stand_for_the_letters_that_the_recipe_gives_them():
    by_code = Letters.of_codec(default_pair().codec).by_code
    assert by_code[0] == 0  # what is not told
    assert set(by_code) == set(range(29))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_dialogues_have_the_turns_of_their_kind_and_two_voices(kind: Kind, tmp_path):
    clips = [VoiceClip(name, tmp_path / name, "Hm.") for name in ("ann", "bob", "cy")]
    scripts = scripts_of(kind, SENTENCES * 4, clips, rounds=2)
    assert scripts == scripts_of(kind, SENTENCES * 4, clips, rounds=2)
    assert len({script.seed for script in scripts}) == len(scripts)
    for script in scripts:
        assert 2 <= len(script.turns) <= kind.n_turns[1]
        assert [turn.speaker for turn in script.turns] == [1 + k % 2 for k in range(len(script.turns))]
        assert all(turn.words.count(".") <= kind.n_sentences[1] for turn in script.turns)
        assert script.voices[0] != script.voices[1]
