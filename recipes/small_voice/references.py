"""One reference clip a voice: what is said in it, and its waveform. No sentence of it is in the tests."""

from pathlib import Path

import numpy as np

from .voices import FRAME, RATE, Voices

TEXTS = {
    "heart": "Good afternoon, and welcome. I am glad that you could find the time to listen to me today.",
    "rms": "The harbor was quiet that evening, and only a few boats came back before the storm.",
    "slt": "Whenever the weather is fine, we open the windows and have our breakfast in the garden.",
    "awb": "There is an old mill by the river, where my uncle used to grind his corn every autumn.",
}
_SEED = 1234


def reference_clip(voice: str, voices: Voices) -> np.ndarray:
    """[L] int16 at 24 kHz, whole frames."""
    clip = voices.speak(voice, TEXTS[voice], _SEED)
    assert len(clip) % FRAME == 0, "an utterance is whole frames"
    return clip


def write_references(directory: Path) -> None:
    """`NAME.flac`, 24 kHz, and `NAME.txt` of every voice."""
    import soundfile

    directory.mkdir(parents=True, exist_ok=True)
    voices = Voices()
    for name, text in TEXTS.items():
        soundfile.write(directory / f"{name}.flac", reference_clip(name, voices), RATE)
        (directory / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
