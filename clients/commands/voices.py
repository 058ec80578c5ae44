"""`moss-ttsd voices`: the voices that the server keeps."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..audio_file import STDOUT
from ..voices import Voice
from .grouping import grouped
from .options import Server, failures_in_one_line

voices = typer.Typer(
    help="List, add, show, replace and remove the voices that the server keeps.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_Name = Annotated[
    str, typer.Argument(help="Letters of any script, digits, blank, '_', '.' and '-'.", show_default=False)
]
_Clip = Annotated[Path, typer.Argument(help="Audio file of one speaker.", show_default=False)]
_Text = Annotated[
    str | None,
    typer.Option(help="What is said in the clip; without it the voice cannot be continued.", show_default=False),
]


@voices.command("list")
@grouped
def list_voices(server: Server) -> None:
    """List the stored voices, a line each: name, seconds, transcript."""
    with failures_in_one_line(), server.client() as client:
        for voice in client.voices():
            typer.echo(_line(voice))


@voices.command()
@grouped
def show(name: _Name, server: Server) -> None:
    """Show one voice, as `list` does."""
    with failures_in_one_line(), server.client() as client:
        typer.echo(_line(client.voice(name)))


@voices.command(epilog="Example: moss-ttsd voices get alice -o alice.wav")
@grouped
def get(
    name: _Name,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; '-' is standard output.", show_default=False)
    ],
    *,
    server: Server,
) -> None:
    """Fetch the clip of a voice: the file as it was stored, whatever its format."""
    with failures_in_one_line(), server.client() as client:
        data = client.voice_clip(name)
        if output == STDOUT:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            output.write_bytes(data)
            typer.echo(f"{len(data)} bytes: {output}")


@voices.command(epilog='Example: moss-ttsd voices add alice alice.wav --text "Good morning, everyone."')
@grouped
def add(
    name: _Name,
    clip: _Clip,
    text: _Text = None,
    *,
    server: Server,
) -> None:
    """Store a voice."""
    with failures_in_one_line(), server.client() as client:
        voice = client.add_voice(name, clip, text)
        typer.echo(f"{voice.name}: {voice.seconds:.2f} s")


@voices.command(epilog='Example: moss-ttsd voices replace alice better.wav --text "Good evening, everyone."')
@grouped
def replace(
    name: _Name,
    clip: _Clip,
    text: _Text = None,
    *,
    server: Server,
) -> None:
    """Store a voice in the place of the one of its name; both clip and text are new."""
    with failures_in_one_line(), server.client() as client:
        voice = client.replace_voice(name, clip, text)
        typer.echo(f"{voice.name}: {voice.seconds:.2f} s")


@voices.command()
@grouped
def remove(name: _Name, server: Server) -> None:
    """Forget a voice."""
    with failures_in_one_line(), server.client() as client:
        client.remove_voice(name)


def _line(voice: Voice) -> str:
    return f"{voice.name}\t{voice.seconds:.2f} s\t{voice.text or '(not transcribed: cannot be continued)'}"
