"""What the quality gates have said: sentences that no training speech contains, by whom, and dialogues of them.

The recipe of the small voice owns sentences and synthesisers; it is a folder of a checkout (`recipes/small_voice`).
"""

import json
import random
import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from ...clients.small_voice import RECIPE, Clip, NoSmallVoice, clips_in

RATE = 24_000  # of the codec
FLITE_VOICES: tuple[str, ...] = ("rms", "slt", "awb")
_TURNS = (2, 3, 4)
_SEED = 0


def held_out_sentences(path: Path | None = None) -> list[str]:
    """A file's sentences, one a line; by default the fifty of the recipe.

    Raises:
        NoSmallVoice: there are none.
    """
    path = path or RECIPE / "held_out.txt"
    if not path.is_file():
        raise NoSmallVoice(f"{path} is missing: sentences to judge by, one a line; name a file with --sentences")
    found = [line.strip() for line in path.read_text("utf-8").split("\n") if line.strip()]
    if not found:
        raise NoSmallVoice(f"{path} holds no sentence")
    return found


def source_speech(sentences: Sequence[str]) -> tuple[str, list[tuple[str, np.ndarray]]]:
    """Speech for the codec: sentences by the synthesisers that are installed, in turn; without any, committed clips.

    Returns:
        Where it is from, in a few words; each text and its [L] float32 at `RATE`, as the training speech is levelled.
    """
    try:
        return _synthesised(sentences)
    except (OSError, ModuleNotFoundError):  # no Flite, or no recipe
        return _committed(RECIPE / "clips")


def _synthesised(sentences: Sequence[str]) -> tuple[str, list[tuple[str, np.ndarray]]]:
    if str(RECIPE.parent) not in sys.path:
        sys.path.append(str(RECIPE.parent))
    from small_voice.voices import Voices

    voices, names = Voices(), [*FLITE_VOICES]
    try:
        voices.speak("heart", sentences[0], 0)
        names.insert(0, "heart")
    except ModuleNotFoundError:
        pass  # hibari-tts is not installed
    spoken = [
        (text, voices.speak(names[i % len(names)], text, i).astype(np.float32) / 32768)
        for i, text in enumerate(sentences)
    ]
    return f"synthesised: {', '.join(names)}", spoken


def _committed(folder: Path) -> tuple[str, list[tuple[str, np.ndarray]]]:
    spoken = []
    for clip in clips_in(folder):
        samples, rate = soundfile.read(clip.path, dtype="float32")
        spoken.append((clip.text, resample_poly(samples, RATE, rate).astype(np.float32)))
    return "committed clips", spoken


def write_dialogues(sentences: Sequence[str], voices: Sequence[Clip], path: Path) -> int:
    """A dataset of dialogues of two speakers, 2 to 4 turns each, in which every sentence is said once.

    Args:
        voices: at least two; each ordered pair of them comes up in turn.
        path: JSONL file to write, as `moss-ttsd batch` reads it.
    Returns:
        How many dialogues there are.
    """
    if len(voices) < 2:
        raise NoSmallVoice(f"two speakers need two voices, found {len(voices)}")
    rng = random.Random(_SEED)
    left, pairs = list(sentences), list(permutations(voices, 2))
    rng.shuffle(left)
    rng.shuffle(pairs)
    lines = []
    while left:
        turns, left = _some_of(left, rng)
        pair = pairs[len(lines) % len(pairs)]
        line = {"id": f"d{len(lines):02}", "language": "en"}
        line["text"] = "".join(f"[S{1 + i % 2}] {text} " for i, text in enumerate(turns)).strip()
        for k, clip in enumerate(pair, start=1):
            line |= {f"prompt_audio_speaker{k}": str(clip.path.resolve()), f"prompt_text_speaker{k}": clip.text}
        lines.append(line)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return len(lines)


def _some_of(left: list[str], rng: random.Random) -> tuple[list[str], list[str]]:
    """Turns of the next dialogue, and what is left; never one sentence alone, unless there is but one."""
    n = rng.choice(_TURNS)
    if len(left) - n < min(_TURNS):
        n = len(left) if len(left) <= max(_TURNS) else 2
    return left[:n], left[n:]
