"""When turns are spoken, by the letters that the small voice's first codebook says.

    frames      _ h h i _ _ _ _ h e l o o _ _        a letter each, or none
    script      h i         |   h e l l o            two turns

Frames are laid over the script's letters in order, by dynamic programming: a frame has the letter of the one before it
or a later one, other letters than its place has and letters that are passed over cost something, and a turn begins
behind silence.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...clients.small_voice import RECIPE

FRAME_S = 0.08
_WRONG, _PASSED_OVER, _NO_SILENCE = 1.0, 0.3, 3.0
_LEFT_OUT = 12  # letters in a row that no frame has: words are missing


@dataclass(frozen=True)
class Letters:
    """The codebook of letters.

    Attributes:
        by_code: [codebook_size] int64, the letter of each code, 0 for none.
    """

    by_code: np.ndarray

    @classmethod
    def of_codec(cls, codec: Path) -> "Letters":
        """Of a codec's directory, in a checkout with the recipe."""
        _find_recipe()
        from small_voice.letter_book import codes_of_pairs

        size = json.loads((codec / "config.json").read_text("utf-8"))["quantizer_kwargs"]["codebook_size"]
        by_code = np.zeros(size, np.int64)
        for letter, codes in enumerate(codes_of_pairs(size)):
            by_code[codes] = letter
        return cls(by_code)

    @staticmethod
    def of(text: str) -> list[int]:
        """The letters of a text."""
        _find_recipe()
        from small_voice.letters import letters_of

        return letters_of(text)


def spoken_times(frames: np.ndarray, turns: Sequence[Sequence[int]]) -> np.ndarray | None:
    """When each turn is spoken.

    Args:
        frames: [T] int64, the letter of each frame, 0 for none.
        turns: letters of each, at least one.
    Returns:
        [K, 2] seconds; None where words of the script are left out.
    """
    at = np.flatnonzero(frames)
    if not len(at):
        return None
    said = np.concatenate([np.asarray(turn, np.int64) for turn in turns])
    of_turn = np.repeat(np.arange(len(turns)), [len(turn) for turn in turns])
    place = _laid_over(frames[at], said, of_turn, np.diff(at) > 1)
    if np.diff(np.concatenate([[-1], place, [len(said)]])).max() > _LEFT_OUT:
        return None
    times = [at[of_turn[place] == k] for k in range(len(turns))]
    if not all(map(len, times)):
        return None
    return np.array([(mine[0] * FRAME_S, (mine[-1] + 1) * FRAME_S) for mine in times])


def _laid_over(letters: np.ndarray, said: np.ndarray, of_turn: np.ndarray, after_silence: np.ndarray) -> np.ndarray:
    """[N] places in `said` of N letters, ascending; `after_silence` [N - 1]: nothing is spoken just before the next."""
    places = np.arange(len(said))
    steps = places[None] - places[:, None]  # [from, to]
    step = np.where(steps < 0, np.inf, _PASSED_OVER * np.maximum(steps - 1, 0))
    into_turn = np.where(of_turn[None] != of_turn[:, None], _NO_SILENCE, 0.0)
    cost = _PASSED_OVER * places + _WRONG * (said != letters[0])
    before = np.zeros((len(letters), len(said)), np.int64)
    for i in range(1, len(letters)):
        ways = cost[:, None] + step + (0.0 if after_silence[i - 1] else into_turn)
        before[i] = np.argmin(ways, axis=0)
        cost = ways[before[i], places] + _WRONG * (said != letters[i])
    found = np.empty(len(letters), np.int64)
    found[-1] = np.argmin(cost + _PASSED_OVER * (len(said) - 1 - places))
    for i in range(len(letters) - 1, 0, -1):
        found[i - 1] = before[i, found[i]]
    return found


def _find_recipe() -> None:
    if str(RECIPE.parent) not in sys.path:
        sys.path.append(str(RECIPE.parent))
