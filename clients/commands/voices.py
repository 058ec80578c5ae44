"""`moss-ttsd voices`: the voices that the server keeps."""

from pathlib import Path
from typing import Annotated

import typer

from .grouping import grouped
from .options import Server, failures_in_one_line

voices = typer.Typer(
    help="List, add and remove the voices that the server keeps.", no_args_is_help=True, rich_markup_mode="markdown"
)
_Name = Annotated[str, typer.Argument(help="Letters, digits, blank, '_', '.' and '-'.", show_default=False)]


@voices.command("list")
@grouped
def list_voices(server: Server) -> None:
    """List the stored voices, a line each: name, seconds, transcript."""
    with failures_in_one_line(), server.client() as client:
        for voice in client.voices():
            typer.echo(f"{voice.name}\t{voice.seconds:.2f} s\t{voice.text or '(not transcribed: cannot be continued)'}")


@voices.command(epilog='Example: moss-ttsd voices add alice alice.wav --text "Good morning, everyone."')
@grouped
def add(
    name: _Name,
    clip: Annotated[Path, typer.Argument(help="WAV, FLAC, OGG or MP3.", show_default=False)],
    text: Annotated[
        str | None,
        typer.Option(help="What is said in the clip; without it the voice cannot be continued.", show_default=False),
    ] = None,
    *,
    server: Server,
) -> None:
    """Store a voice."""
    with failures_in_one_line(), server.client() as client:
        voice = client.add_voice(name, clip, text)
        typer.echo(f"{voice.name}: {voice.seconds:.2f} s")


@voices.command()
@grouped
def remove(name: _Name, server: Server) -> None:
    """Forget a voice."""
    with failures_in_one_line(), server.client() as client:
        client.remove_voice(name)
