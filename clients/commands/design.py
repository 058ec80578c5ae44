"""`moss-ttsd design`: a voice from its description, heard, and kept for dialogues."""

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..client import MossClient
from ..connection import DEFAULT_TIMEOUT_S
from ..design import Design, check_servers, design, keep, sample_text
from ..playing import Player, player_program
from ..speech import SpeechChunk
from ..speech_request import SpeechSettings
from .grouping import grouped
from .options import MaxSeconds, Sampling, failures_in_one_line

EPILOG = """Example:

moss-ttsd design "an old sailor, hoarse, amused" --name sailor --play --voice-url http://127.0.0.1:30001
--store-url http://127.0.0.1:30000

moss-ttsd say "[S1] Ahoy there!" --voice S1=sailor --url http://127.0.0.1:30000 -o ahoy.wav
"""
_SERVERS = "Servers"


@grouped
def design_voice(
    description: Annotated[
        str, typer.Argument(help="Of the voice: who speaks, how it sounds, in which mood.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="By which dialogues will have it.", show_default=False)],
    voice_url: Annotated[
        str,
        typer.Option(
            envvar="MOSS_VOICE_URL",
            help="Server of MOSS-VoiceGenerator, which makes it.",
            show_default=False,
            rich_help_panel=_SERVERS,
        ),
    ],
    store_url: Annotated[
        str,
        typer.Option(
            envvar="MOSS_URL",
            help="Server of MOSS-TTSD or MOSS-TTS, which keeps it.",
            show_default=False,
            rich_help_panel=_SERVERS,
        ),
    ],
    text: Annotated[
        str | None, typer.Option(help="What it says in its clip; by default a few sentences.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the clip to this .wav file too.", show_default=False),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it while it comes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Keep it without a question.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In the place of the voice that has the name.")] = False,
    max_seconds: MaxSeconds = None,
    voice_api_key: Annotated[
        str | None,
        typer.Option(
            envvar=["MOSS_VOICE_API_KEY", "MOSS_API_KEY"],
            help="Key of --voice-url.",
            show_default=False,
            rich_help_panel=_SERVERS,
        ),
    ] = None,
    store_api_key: Annotated[
        str | None,
        typer.Option(envvar="MOSS_API_KEY", help="Key of --store-url.", show_default=False, rich_help_panel=_SERVERS),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for more of an answer.", min=0.001, rich_help_panel=_SERVERS)
    ] = DEFAULT_TIMEOUT_S,
    *,
    sampling: Sampling,
) -> None:
    """Make a voice from a description, listen to it, and keep it for dialogues.

    On a terminal it asks before it keeps the voice, and makes another one on request.
    """
    with failures_in_one_line(), ExitStack() as stack:
        if play:
            player_program()
        if output is not None and (output.suffix.lower() != ".wav" or not output.parent.is_dir()):
            raise ValueError(f"{output} cannot be written: name a .wav file in a folder that is there")
        designing = stack.enter_context(MossClient(voice_url, voice_api_key, timeout))
        keeping = stack.enter_context(MossClient(store_url, store_api_key, timeout))
        check_servers(designing, keeping, name, replace=replace)
        settings = SpeechSettings(max_seconds=max_seconds, **asdict(sampling))
        while True:
            made = _heard(designing, description, text or sample_text(description), settings, play)
            if output is not None:
                output.write_bytes(made.wav)
            typer.echo(f"{made.seconds:.2f} s, seed {made.seed}" + ("" if output is None else f": {output}"))
            answer = _asked(name) if _is_asked() and not yes else "k"
            if answer == "k":
                break
            if answer == "q":
                raise typer.Exit(1)
            settings["seed"] = None
        voice = keep(keeping, name, made, replace=replace)
        typer.echo(f"kept as {voice.name}, {voice.seconds:.2f} s; moss-ttsd say ... --voice S1={voice.name}")


def _heard(client: MossClient, description: str, text: str, settings: SpeechSettings, play: bool) -> Design:
    """A voice, played while it comes where that is wanted."""
    with ExitStack() as stack:
        players: list[Player] = []

        def take(chunk: SpeechChunk) -> None:
            if play and chunk.pcm:
                if not players:
                    players.append(stack.enter_context(Player(chunk.sample_rate)))
                players[0].write(chunk.pcm)

        return design(client, description, text, settings, take)


def _is_asked() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _asked(name: str) -> str:
    answer = ""
    while answer not in ("k", "a", "q"):
        answer = typer.prompt(f"(k)eep it as {name}, make (a)nother one, or (q)uit", default="k").strip()[:1].lower()
    return answer
