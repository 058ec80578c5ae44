"""`moss-ttsd voices`: the voices that the server keeps."""

from pathlib import Path
from typing import Annotated

import typer

from ..client import MossClient
from ..connection import DEFAULT_TIMEOUT_S, DEFAULT_URL
from .options import ApiKey, Timeout, Url, failures_in_one_line

voices = typer.Typer(
    help="List, add and remove the voices that the server keeps.", no_args_is_help=True, rich_markup_mode="markdown"
)
_Name = Annotated[str, typer.Argument(help="Letters, digits, blank, '_', '.' and '-'.", show_default=False)]


@voices.command("list")
def list_voices(url: Url = DEFAULT_URL, api_key: ApiKey = None, timeout: Timeout = DEFAULT_TIMEOUT_S) -> None:
    """List the stored voices, a line each: name, seconds, transcript."""
    with failures_in_one_line(), MossClient(url, api_key, timeout) as client:
        for voice in client.voices():
            typer.echo(f"{voice.name}\t{voice.seconds:.2f} s\t{voice.text or '(not transcribed: cannot be continued)'}")


@voices.command(epilog='Example: moss-ttsd voices add alice alice.wav --text "Good morning, everyone."')
def add(
    name: _Name,
    clip: Annotated[Path, typer.Argument(help="WAV, FLAC, OGG or MP3.", show_default=False)],
    text: Annotated[
        str | None,
        typer.Option(help="What is said in the clip; without it the voice cannot be continued.", show_default=False),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Store a voice."""
    with failures_in_one_line(), MossClient(url, api_key, timeout) as client:
        voice = client.add_voice(name, clip, text)
        typer.echo(f"{voice.name}: {voice.seconds:.2f} s")


@voices.command()
def remove(name: _Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, timeout: Timeout = DEFAULT_TIMEOUT_S) -> None:
    """Forget a voice."""
    with failures_in_one_line(), MossClient(url, api_key, timeout) as client:
        client.remove_voice(name)
