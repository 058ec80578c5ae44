"""Options that several commands have, and how all of them fail."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from ..client import MossClient
from ..connection import DEFAULT_TIMEOUT_S, DEFAULT_URL
from ..errors import ClientError, ServerRefused, ServerUnreachable
from ..local_server import ServerFailed
from ..request import Mode, Reference

_SERVER = "Server"
_SAMPLING = "Sampling (left out: the server's defaults)"
_BROKEN_PIPE = 141  # as shells say that a program ended by SIGPIPE
_VOICE = re.compile(r"\[?S?([1-5])\]?=(.+)", re.IGNORECASE)

Seed = Annotated[
    int | None,
    typer.Option(help="The same seed gives the same speech again.", show_default=False, rich_help_panel=_SAMPLING),
]
MaxSeconds = Annotated[float | None, typer.Option(help="Cut the speech there.", show_default=False)]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        help="How clips are used; by default cloned, and continued where transcribed.",
        show_default=False,
        rich_help_panel="Voices",
    ),
]
VoiceNames = Annotated[
    list[str] | None,
    typer.Option(
        "--voice",
        metavar="S1=NAME",
        help="Stored voice of a speaker; repeat it. See `moss-ttsd voices`.",
        show_default=False,
        rich_help_panel="Voices",
    ),
]


@dataclass(frozen=True)
class Sampling:
    """How the model draws; None: the server's default."""

    seed: Seed = None
    temperature: Annotated[
        float | None, typer.Option(help="0: always the likeliest.", show_default=False, rich_help_panel=_SAMPLING)
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(help="Share of the probability that is kept.", show_default=False, rich_help_panel=_SAMPLING),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(help="How many candidates are kept; -1: all.", show_default=False, rich_help_panel=_SAMPLING),
    ] = None
    repetition_penalty: Annotated[
        float | None, typer.Option(help="1: off.", show_default=False, rich_help_panel=_SAMPLING)
    ] = None


@dataclass(frozen=True)
class Server:
    """Which server is asked, and how."""

    url: Annotated[str, typer.Option(envvar="MOSS_URL", help="Address of the server.", rich_help_panel=_SERVER)] = (
        DEFAULT_URL
    )
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="MOSS_API_KEY", show_default=False, help="Key that the server asks for.", rich_help_panel=_SERVER
        ),
    ] = None
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for more of an answer.", min=0.001, rich_help_panel=_SERVER)
    ] = DEFAULT_TIMEOUT_S

    def client(self) -> MossClient:
        """Raises ValueError where there can be none, see `MossClient`."""
        return MossClient(self.url, self.api_key, self.timeout)


def voices_by_speaker(names: list[str] | None, references: list[Reference]) -> dict[int, str | Reference]:
    """Stored voices for the speakers that they name, clips for the others in their order.

    Raises:
        BadParameter: not S1=NAME, a speaker named twice, or one left out before the last.
    """
    voices: dict[int, str | Reference] = {}
    for value in names or ():
        found = _VOICE.fullmatch(value.strip())
        if found is None or int(found[1]) in voices:
            raise typer.BadParameter(f"one S1=NAME for each speaker from S1 to S5, got {value!r}", param_hint="--voice")
        voices[int(found[1])] = found[2].strip()
    others = (speaker for speaker in range(1, 1 + len(voices) + len(references)) if speaker not in voices)
    voices |= dict(zip(others, references, strict=False))
    if gaps := set(range(1, len(voices) + 1)) - voices.keys():
        raise typer.BadParameter(
            f"S{max(voices)} has a voice and S{min(gaps)} has none: number the speakers with a voice from S1 on",
            param_hint="--voice",
        )
    return voices


@contextmanager
def failures_in_one_line() -> Iterator[None]:
    """What a user can mend is one sentence and exit status 1; anything else keeps its traceback."""
    try:
        yield
    except BrokenPipeError:
        # Whoever read standard output has enough; what is still buffered has nowhere to go when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_BROKEN_PIPE) from None
    except (ClientError, OSError, ServerFailed, ValueError) as error:  # a FuseError is a ValueError
        typer.echo(f"error: {_sentence(error)}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def _sentence(error: Exception) -> str:
    """What went wrong, and which option mends it."""
    match error:
        case ServerUnreachable() if "is the server running" in str(error):
            return f"{error} `moss-ttsd serve` starts one, --url or MOSS_URL names another"
        case ServerRefused(status=401):
            return f"{error}; --api-key or MOSS_API_KEY gives it"
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}"
    return str(error)
