"""The command line `moss-ttsd`: speak a text with a running server, measure its speed, and fuse checkpoints.

Exit status: 0 done, 1 refused or failed (one line on stderr), 2 wrong usage, 130 Ctrl-C.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sglang_moss import __version__

from ..fuse import fuse as fuse_checkpoints
from .client import MossClient
from .connection import DEFAULT_TIMEOUT_S, DEFAULT_URL
from .errors import ClientError
from .request import Mode, Reference

app = typer.Typer(
    help="MOSS-TTSD: dialogue scripts to speech.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they would hold the API key
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"moss-ttsd {__version__}")
        raise typer.Exit


@app.command()
def say(
    text: Annotated[str, typer.Argument(help="The script, '[S1] ... [S2] ...'; '-' reads it from standard input.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="WAV file to write; replaced if it exists.")],
    reference: Annotated[
        list[str] | None,
        typer.Option(help="Audio file, or URL, with a speaker's voice; repeat it: the first is [S1]'s."),
    ] = None,
    reference_text: Annotated[
        list[str] | None, typer.Option(help="What is said in the clip; one for every --reference, in the same order.")
    ] = None,
    url: Annotated[str, typer.Option(help="Address of the server.")] = DEFAULT_URL,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="MOSS_TTSD_API_KEY", show_default=False, help="Key that the server asks for."),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="How references are used; by default cloned, and continued if transcribed.")
    ] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Cut the speech there.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same speech again.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: always the likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
    top_k: Annotated[int | None, typer.Option(help="-1: off.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1: off.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = DEFAULT_TIMEOUT_S,
) -> None:
    """Speak a text and write it to a WAV file."""
    with _failures_in_one_line():
        references = _references(reference or [], reference_text or [])
        if output.is_dir() or not output.parent.is_dir():  # known before the server works for nothing
            raise ValueError(f"{output} cannot be written: name a file in a folder that exists")
        script = sys.stdin.read().strip() if text == "-" else text
        started = time.monotonic()
        with MossClient(url, api_key, timeout) as client:
            speech = client.generate(
                script,
                references,
                mode=mode,
                max_seconds=max_seconds,
                seed=seed,
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                repetition_penalty=repetition_penalty,
            )
        took_s = time.monotonic() - started
        output.write_bytes(speech.wav)
        cut = " (cut: not at the end of the text)" if speech.finish_reason == "length" else ""
        typer.echo(f"{speech.seconds:.2f} s of audio{cut}, {speech.frames} frames, in {took_s:.2f} s: {output}")


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: Annotated[list[str] | None, typer.Argument(help="See `moss-ttsd bench --help`.")] = None) -> None:
    """Measure the speed of a running server."""
    from ..benchmarks.serving import main as benchmark  # only here: numpy and more for nothing else of the client's

    raise typer.Exit(benchmark(arguments or [], prog="moss-ttsd bench"))


@app.command()
def fuse(
    model_path: Annotated[str, typer.Option(help="Directory of the language model, downloaded before.")],
    codec_model_path: Annotated[str, typer.Option(help="Directory of the codec, downloaded before.")],
    save_path: Annotated[str, typer.Option(help="Directory to make; needs room for both checkpoints.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --save-path once the new one is whole.")
    ] = False,
) -> None:
    """Fuse a language model and its codec into one checkpoint that `sglang serve` loads."""
    with _failures_in_one_line():
        typer.echo(fuse_checkpoints(model_path, codec_model_path, save_path, overwrite=overwrite))


def _references(audio: list[str], transcripts: list[str]) -> list[Reference]:
    if transcripts and len(transcripts) != len(audio):
        raise ValueError(
            f"every --reference needs its --reference-text, or none has one: got {len(audio)} references and "
            f"{len(transcripts)} texts"
        )
    return [Reference(*pair) for pair in zip(audio, transcripts or [None] * len(audio), strict=True)]


@contextmanager
def _failures_in_one_line() -> Iterator[None]:
    """What a user can mend is one sentence and exit status 1; anything else keeps its traceback."""
    try:
        yield
    except (ClientError, OSError, ValueError) as error:  # a FuseError is a ValueError
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
