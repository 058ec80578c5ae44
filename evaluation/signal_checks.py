"""What is wrong with the sound itself, whatever is said in it.

| flag | when |
| --- | --- |
| `silent` | nothing above -50 dBFS |
| `clipped` | runs of 3 or more samples at full scale, together more than 1 in 10,000 |
| `cut_start`, `cut_end` | the first or last 30 ms are at most 15 dB below the speech: it has no beginning or no end |
| `long_silence` | more than 2 s of silence at either end, or 1.5 s inside one dialogue |
| `too_fast`, `too_slow` | the text over the time that it took is outside what people read |

The bounds of speed are half and twice of what `server.speech.parts` expects: the rule of thumb that also ends runaway
speech. Speech that is cut by its length is `too_fast`, speech that babbles on is `too_slow`.
"""

from collections.abc import Sequence

import numpy as np

from sglang_moss.request.turns import Turn, speech_seconds

from .clips import RATE, frame_levels, pauses_in, sounding, speech_level
from .results import SignalScore

FLAGS = ("silent", "clipped", "cut_start", "cut_end", "long_silence", "too_fast", "too_slow")
_SILENT_DBFS = -50.0
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 1e-4
_EDGE_FRAMES = 3  # of 10 ms
_EDGE_BELOW_DB = 15.0
_LONG_AT_ENDS_S, _LONG_INSIDE_S = 2.0, 1.5
_FASTEST, _SLOWEST = 0.5, 2.0  # times the expected length


def check_signal(samples: np.ndarray, original: np.ndarray, turns: Sequence[Turn]) -> SignalScore:
    """Look at one clip.

    Args:
        samples: [L] float32 at `RATE`, L >= 1.
        original: [N] float32 at the file's own rate: a clipped wave that was resampled is no longer flat.
        turns: what it should say.
    """
    levels = frame_levels(samples)
    level = speech_level(levels)
    sound = sounding(samples)
    seconds = len(samples) / RATE
    at_end_s = max(0.0, seconds - sound.end_s)
    inside = [pause.seconds for pause in pauses_in(samples) if sound.start_s < pause.middle_s < sound.end_s]
    longest = max(inside, default=0.0)
    n_clipped = clipped_samples(original)
    expected_s = sum(speech_seconds(turn.words) for turn in turns)
    # Frames are counted from the front, so the last one may be short of samples: the edge is taken from the samples.
    first, last = _level(samples[: _EDGE_FRAMES * RATE // 100]), _level(samples[-_EDGE_FRAMES * RATE // 100 :])
    found = {
        "silent": level < _SILENT_DBFS,
        "clipped": n_clipped > _CLIPPED_SHARE * len(original),
        "cut_start": first > level - _EDGE_BELOW_DB,
        "cut_end": last > level - _EDGE_BELOW_DB,
        "long_silence": max(sound.start_s, at_end_s) > _LONG_AT_ENDS_S or longest > _LONG_INSIDE_S,
        "too_fast": sound.seconds < _FASTEST * expected_s,
        "too_slow": sound.seconds > _SLOWEST * expected_s,
    }
    n_letters = sum(map(str.isalnum, "".join(turn.words for turn in turns)))
    return SignalScore(
        seconds=seconds,
        level_dbfs=level,
        clipped_samples=n_clipped,
        silence_start_s=sound.start_s,
        silence_end_s=at_end_s,
        longest_silence_s=longest,
        letters_per_second=n_letters / max(sound.seconds, 0.01),
        flags=["silent"] if found["silent"] else [name for name in FLAGS if found[name]],
    )


def clipped_samples(samples: np.ndarray) -> int:
    """How many of [N] samples stand in a run of at least 3 at full scale."""
    full = np.concatenate([[False], np.abs(samples) >= _FULL_SCALE, [False]])
    runs = np.flatnonzero(full[1:] != full[:-1]).reshape(-1, 2)
    lengths = runs[:, 1] - runs[:, 0]
    return int(lengths[lengths >= 3].sum())


def _level(samples: np.ndarray) -> float:
    return float(frame_levels(samples).max())
