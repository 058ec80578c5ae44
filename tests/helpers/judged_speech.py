"""Short clips of two synthetic voices, dialogues made of them, and back ends that answer what a test says."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from sglang_moss.evaluation.clips import RATE, read_clip
from sglang_moss.evaluation.recognisers import Heard
from sglang_moss.request.turns import Turn

SPEECH = Path(__file__).parents[1] / "evaluation" / "speech"
WORDS = {
    "rms_reference": "The quick brown fox jumps over the lazy dog near the river.",
    "slt_reference": "We went to the market early in the morning to buy some bread.",
    "rms_question": "Good morning, did you sleep well last night?",
    "rms_offer": "Would you like some coffee before we leave?",
    "slt_answer": "I will call you when the report is ready.",
    "slt_wish": "We should finish our work before lunch.",
}
DIALOGUE = ("rms_question", "slt_wish", "rms_offer")


def clip(name: str) -> np.ndarray:
    """[L] float32 at `RATE`."""
    return read_clip(SPEECH / f"{name}.flac")[0]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def joined(names: Sequence[str], pause_s: float = 0.2) -> np.ndarray:
    """Clips one after the other."""
    parts = [part for name in names for part in (clip(name), silence(pause_s))]
    return np.concatenate([silence(0.1), *parts])


def turns(names: Sequence[str]) -> list[Turn]:
    """rms is speaker 1, slt is speaker 2."""
    return [Turn(1 if name.startswith("rms") else 2, WORDS[name]) for name in names]


def line(names: Sequence[str] = DIALOGUE, **more: object) -> dict:
    """A dataset's line for these turns, with the references of both voices."""
    return {
        "text": "".join(map(str, turns(names))),
        "base_path": str(SPEECH),
        "prompt_audio_speaker1": "rms_reference.flac",
        "prompt_text_speaker1": WORDS["rms_reference"],
        "prompt_audio_speaker2": "slt_reference.flac",
        "prompt_text_speaker2": WORDS["slt_reference"],
        **more,
    }


def write_dataset(path: Path, lines: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def write_speech(folder: Path, name: str, samples: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="PCM_16")
    return folder / f"{name}.wav"


class Repeating:
    """A recogniser that hears the same in every clip, and counts."""

    def __init__(self, text: str = "", *languages: str) -> None:
        self.text = text
        self.languages = frozenset(languages) or None
        self.n_heard = 0
        self.versions = {"repeating": "1"}

    def hear(self, samples: np.ndarray, language: str) -> Heard:
        del samples, language
        self.n_heard += 1
        return Heard(self.text)
