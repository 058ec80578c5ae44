"""Whether a fused pair can be understood: gates on what its codec and its dialogues sound like, and how soon.

    python -m sglang_moss.benchmarks.quality --out quality.jsonl                      the small voice of this checkout
    python -m sglang_moss.benchmarks.quality FUSED --voices DIR --sentences FILE      another pair
    python -m sglang_moss.benchmarks.quality --variant cpu --variant fp8              what a precision costs, on a GPU

| check | what | bar |
| --- | --- | --- |
| `codec` | words wrong in unseen sentences through the codec, less those in the sentences themselves | 0.05 |
| `wer` | words wrong in dialogues of two speakers, in which every sentence is said once | 0.15 |
| `acc` | turns with the right voice; `sim` beside it has no bar | 0.9 |
| `unspoken` | dialogues that could not be spoken or judged | 0 |
| `streams_apart` | streams more than a 16-bit step from the whole answer anywhere; on a GPU it has no bar | 0 |
| `rtf` | seconds that a stream takes, over seconds of audio in it, one at a time | 1 |
| `first_audio_s` | the longest time to the first sound among them, references read and encoded | 1.5 |

The server is the real one, its settings those that the checkpoint brings; on the CPU it has two cores. A recogniser
that comes with its weights listens (docs/evaluation.md). Exit status 1: a bar was not cleared. A line for each check;
with several variants also what each costs beside the first, item by item (`cost`).
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..clients.errors import ClientError
from ..clients.local_server import SGLANG_SERVE, LocalServer, ServerFailed
from ..clients.small_voice import VOICES, NoSmallVoice, clips_in, default_pair
from ..evaluation.dataset import read_dataset
from ..evaluation.errors import CannotJudge
from ..evaluation.judge import BackEnds
from ..evaluation.results import Result
from ..evaluation.run import Choice
from ..fuse import FuseError
from .judging.codec import reconstruction_errors
from .judging.gates import Line, cost_lines, heard_lines, reading, row_of, short_form, stream_lines
from .judging.speech import speak_and_judge, steps_apart, stream_each
from .judging.texts import held_out_sentences, source_speech, write_dialogues
from .judging.variants import VARIANTS, Variant, on_cores
from .runs.exiting import exit_on_sigterm
from .runs.record import record

_SHORT_SENTENCES, _SHORT_STREAMS, _STREAMS = 16, 2, 6


class Part(StrEnum):
    """What may be left out."""

    CODEC = "codec"
    SPEECH = "speech"


@dataclass(frozen=True)
class Run:
    """What is measured, and how."""

    fused: Path
    voices: Path
    sentences: Sequence[str]
    n_streams: int
    cores: int
    folder: Path

    def codec(self, back_ends: BackEnds) -> Iterator[Line]:
        """One line."""
        source, speech = source_speech(self.sentences)
        found = reconstruction_errors(self.fused, speech, back_ends.recogniser)
        cost = found.cost
        more = {"low": cost.low, "high": cost.high, "n": cost.n, "source": source}
        yield reading("codec", "float32", cost.value, source_wer=found.source, codec_wer=found.codec, **more)

    def speech(self, variants: Sequence[Variant], back_ends: BackEnds) -> Iterator[Line]:
        """Lines of each variant, then those that hold it beside the first."""
        dataset = self.folder / "dialogues.jsonl"
        write_dialogues(self.sentences, clips_in(self.voices), dataset)
        items = read_dataset(dataset)
        results: dict[str, Result] = {}
        for variant in variants:
            folder = self.folder / variant.name
            with self._served(variant) as url:
                streams = stream_each(url, items[: self.n_streams])
                results[variant.name] = speak_and_judge(url, items, folder, back_ends)
            yield from heard_lines(variant.name, results[variant.name])
            yield from stream_lines(variant.name, streams, steps_apart(streams, folder), has_bar=variant.on_cpu)
        first, *others = results.items()
        for name, result in others:
            yield from cost_lines(first, (name, result))

    @contextmanager
    def _served(self, variant: Variant) -> Iterator[str]:
        cores = self.cores if variant.on_cpu else None
        env = dict(variant.env) | ({"OMP_NUM_THREADS": str(cores)} if cores else {})
        log = self.folder / f"{variant.name}.server.log"
        server = LocalServer(self.fused, extra_args=variant.server_args, env=env, log=log, command=SGLANG_SERVE)
        with on_cores(cores):
            server.__enter__()
        try:
            yield server.url
        finally:
            server.stop()


def main(
    fused: Annotated[
        Path | None, typer.Argument(help="Fused checkpoint; by default this checkout's small voice.")
    ] = None,
    voices: Annotated[Path, typer.Option(help="Clips NAME.wav or NAME.flac, NAME.txt.")] = VOICES,
    sentences: Annotated[Path | None, typer.Option(help="One a line, that no training speech has.")] = None,
    parts: Annotated[list[Part], typer.Option("--part", help="Repeat it.")] = list(Part),  # noqa: B006 (typer's form)
    variants: Annotated[list[str], typer.Option("--variant", help=f"{', '.join(VARIANTS)}; repeat it.")] = ["cpu"],  # noqa: B006 (typer's form)
    short: Annotated[bool, typer.Option("--short", help="A few sentences, for CI: no bars on time.")] = False,
    streams: Annotated[int, typer.Option(help="Dialogues that are streamed.", min=1)] = _STREAMS,
    cores: Annotated[int, typer.Option(help="Of the server on the CPU.", min=1)] = 2,
    folder: Annotated[Path | None, typer.Option(help="Keeps the speech, the judge's results and logs.")] = None,
    out: Annotated[Path, typer.Option()] = Path("quality.jsonl"),
) -> None:
    """Measure, append a line for each check, and say by the exit status whether all bars were cleared."""
    exit_on_sigterm()
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]}: known are {', '.join(VARIANTS)}", param_hint="--variant")
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        try:
            texts = held_out_sentences(sentences)[: _SHORT_SENTENCES if short else None]
            path = fused or _fused_here(Path(scratch) / "fused")
            run = Run(path, voices, texts, _SHORT_STREAMS if short else streams, cores, place)
            found = _lines(run, parts, [VARIANTS[name] for name in variants])
            lines = record(out, map(short_form, found) if short else found, show=row_of)
        except (CannotJudge, ClientError, FuseError, NoSmallVoice, ServerFailed) as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
    failed = [line["check"] for line in lines if line.get("passes") is False]
    print(f"not cleared: {', '.join(failed)}" if failed else "all bars cleared")
    raise typer.Exit(int(bool(failed)))


def _lines(run: Run, parts: Sequence[Part], variants: Sequence[Variant]) -> Iterator[Line]:
    back_ends = Choice().load()  # before anything is spoken for nothing
    if Part.CODEC in parts:
        yield from run.codec(back_ends)
    if Part.SPEECH in parts:
        yield from run.speech(variants, back_ends)


def _fused_here(save_path: Path) -> Path:
    pair = default_pair()
    if not pair.has_learnt:
        raise NoSmallVoice("there is no small voice in this checkout yet: name a fused checkpoint, and its --voices")
    pair.fuse(save_path)
    return save_path


if __name__ == "__main__":
    typer.run(main)
