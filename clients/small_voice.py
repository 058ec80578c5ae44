"""What `make demo` and `make serve` speak with: the small voice of a checkout, or else the tests' tiny random weights.

    recipes/small_voice/checkpoint/ttsd, codec       as they are published
    server/speech/starters/NAME.flac, NAME.txt       a clip of each voice, and the words in it
    tests/golden/ttsd, codec                         random weights, where there is no such checkpoint yet

The checkpoints are files of a checkout; an installed package has the clips alone, which every server offers as starter
voices. `python -m sglang_moss.clients.small_voice FUSED` fuses what is there.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..fuse import FuseError, fuse

CHECKOUT = Path(__file__).resolve().parent.parent
RECIPE = CHECKOUT / "recipes" / "small_voice"
VOICES = CHECKOUT / "server" / "speech" / "starters"
GOLDEN = CHECKOUT / "tests" / "golden"
_CLIPS = (".wav", ".flac")


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


def default_pair(checkpoint: Path = RECIPE / "checkpoint", voices: Path = VOICES, golden: Path = GOLDEN) -> Pair:
    """What there is to speak with.

    Raises:
        NoSmallVoice: a checkpoint or a clip's words are missing, or this is no checkout.
    """
    if checkpoint.is_dir():
        pair = Pair(checkpoint / "ttsd", checkpoint / "codec", True, clips_in(voices))
    else:
        pair = Pair(golden / "ttsd", golden / "codec", False, ())
    for folder in (pair.language_model, pair.codec):
        if not (folder / "config.json").is_file():
            raise NoSmallVoice(f"{folder} holds no checkpoint: run this in a whole checkout of the project")
    return pair


def clips_in(folder: Path) -> tuple[Clip, ...]:
    """The clips of a folder, WAV and FLAC, by name.

    Raises:
        NoSmallVoice: there is none, or one without its words.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix in _CLIPS)
    if not paths:
        raise NoSmallVoice(f"{folder} holds no clip NAME.wav or NAME.flac: name a folder of voices")
    for path in paths:
        if not path.with_suffix(".txt").is_file():
            raise NoSmallVoice(f"{path.with_suffix('.txt')} is missing: what is said in {path.name}")
    return tuple(Clip(path.stem, path, path.with_suffix(".txt").read_text("utf-8").strip()) for path in paths)


def main(argv: Sequence[str] | None = None) -> int:
    """Fuse; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sglang_moss.clients.small_voice", description=__doc__)
    parser.add_argument("fused", type=Path)
    args = parser.parse_args(argv)
    try:
        pair = default_pair()
        if not pair.has_learnt:
            print("there is no small voice in this checkout yet: taking tiny random weights, which babble")
        print(pair.fuse(args.fused))
    except (FuseError, NoSmallVoice, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
