"""What `make demo` and `make serve` speak with: the small voice of a checkout, or else the tests' tiny random weights.

    recipes/small_voice/checkpoint/ttsd, codec       as they are published
    recipes/small_voice/voices/NAME.wav, NAME.txt    a clip of each voice, and the words in it
    tests/golden/ttsd, codec                         random weights, where there is no such checkpoint yet

All of them are files of a checkout; an installed package has none. `python -m sglang_moss.clients.small_voice FUSED
VOICES_DIR` fuses what is there, and stores its voices for `sglang serve --voices-dir`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..fuse import FuseError, fuse

CHECKOUT = Path(__file__).resolve().parent.parent
RECIPE = CHECKOUT / "recipes" / "small_voice"
GOLDEN = CHECKOUT / "tests" / "golden"


class NoSmallVoice(RuntimeError):  # noqa: N818 (named for what happened)
    """There is no checkpoint to speak with, or half of one; the message says what is missing."""


@dataclass(frozen=True)
class Clip:
    """A voice's reference.

    Attributes:
        name: of the voice.
        path: a sound file.
        text: the words in it.
    """

    name: str
    path: Path
    text: str


@dataclass(frozen=True)
class Pair:
    """Two checkpoints in the published layout.

    Attributes:
        has_learnt: the weights speak; False: they are random.
        clips: of its voices, by name; none where the weights are random.
    """

    language_model: Path
    codec: Path
    has_learnt: bool
    clips: tuple[Clip, ...]

    def fuse(self, save_path: Path) -> str:
        """Fuse, in the place of an earlier one; returns a line about it.

        Raises:
            FuseError: a refusal.
        """
        report = fuse(self.language_model, self.codec, save_path, profile="ttsd", overwrite=True, show_progress=False)
        return str(report)

    def store_voices(self, folder: Path) -> None:
        """Have a server's folder of voices hold these; others in it stay. Makes none where there are no voices.

        Raises:
            OSError: it cannot be written.
        """
        if not self.clips:
            return
        from soundfile import info

        from ..server.speech.voice_store import VoiceStore

        store = VoiceStore(folder, max_voices=1000)
        for clip in self.clips:
            store.put(clip.name, clip.path.read_bytes(), clip.text, info(clip.path).duration)


def default_pair(recipe: Path = RECIPE, golden: Path = GOLDEN) -> Pair:
    """What there is to speak with.

    Raises:
        NoSmallVoice: a checkpoint or a clip's words are missing, or this is no checkout.
    """
    checkpoint = recipe / "checkpoint"
    if checkpoint.is_dir():
        pair = Pair(checkpoint / "ttsd", checkpoint / "codec", True, clips_in(recipe / "voices"))
    else:
        pair = Pair(golden / "ttsd", golden / "codec", False, ())
    for folder in (pair.language_model, pair.codec):
        if not (folder / "config.json").is_file():
            raise NoSmallVoice(f"{folder} holds no checkpoint: run this in a whole checkout of the project")
    return pair


def clips_in(folder: Path, suffix: str = ".wav") -> tuple[Clip, ...]:
    """The clips of a folder, by name.

    Raises:
        NoSmallVoice: there is none, or one without its words.
    """
    paths = sorted(folder.glob(f"*{suffix}"))
    if not paths:
        raise NoSmallVoice(f"{folder} holds no clip NAME{suffix}: take the voices of this checkpoint's recipe")
    for path in paths:
        if not path.with_suffix(".txt").is_file():
            raise NoSmallVoice(f"{path.with_suffix('.txt')} is missing: what is said in {path.name}")
    return tuple(Clip(path.stem, path, path.with_suffix(".txt").read_text("utf-8").strip()) for path in paths)


def main(argv: Sequence[str] | None = None) -> int:
    """Fuse and store; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sglang_moss.clients.small_voice", description=__doc__)
    parser.add_argument("fused", type=Path)
    parser.add_argument("voices_dir", type=Path)
    args = parser.parse_args(argv)
    try:
        pair = default_pair()
        if not pair.has_learnt:
            print("there is no small voice in this checkout yet: taking tiny random weights, which babble")
        print(pair.fuse(args.fused))
        pair.store_voices(args.voices_dir)
    except (FuseError, NoSmallVoice, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
