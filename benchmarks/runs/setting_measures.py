"""What is measured of a server of one setting: a program, and when its lines are all there."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .server_settings import PLAIN

Line = dict[str, Any]
_END_S = 10.0  # of a search, for what stands around it
_FIRST_SOUND = ("--audio-seconds", "4", "--rounds", "3", "--least-requests", "12")
_FIRST_FRAMES = (4, 1)
_MANY_AT_ONCE = 16
_PROFILED = (1, 64, 128)  # requests
_LEAST_SEARCH_S = 90.0 + _END_S  # for one load, with its windows and what stands around them


@dataclass(frozen=True)
class Measure:
    """A program on a server of ours.

    Attributes:
        benchmark: of its lines.
        arguments: from those of the comparison and the seconds that it may take.
        missing: of what it is asked for, what no line of this setting has; empty: it is done.
        limit: name of the argument that says how many seconds it may take.
        ceiling: the same of the plain model, if there is such a program; it starts its server itself.
        can_be_silent: whether it may be told that silence is well.
        least_s: with less time than this it can measure nothing.
        may_fail: whether its status says what was found, so that its lines alone tell whether it went well.
    """

    program: str
    benchmark: str
    arguments: Callable[[argparse.Namespace, float], Sequence[str]]
    missing: Callable[[argparse.Namespace, Sequence[Line]], set[Any]]
    limit: str = "streams_seconds"
    ceiling: "Measure | None" = None
    can_be_silent: bool = True
    least_s: float = 0.0
    may_fail: bool = False


def clips_of(folder: Path) -> Path:
    """Where servers of a comparison find clips that requests name by their path."""
    return folder.resolve() / "clips"


def _closed_loop(args: argparse.Namespace, _limit_s: float) -> list[str]:
    found = ["--audio-seconds", f"{args.audio_seconds:g}", "--rounds", str(args.rounds), "--least-requests", "4"]
    return [*found, "--concurrency", *map(str, args.concurrency)]


def _streams(args: argparse.Namespace, limit_s: float) -> list[str]:
    return [*_closed_loop(args, limit_s), "--stream"]


def _clients_missing(stream: bool) -> Callable[[argparse.Namespace, Sequence[Line]], set[Any]]:
    """Numbers of clients without a line; the plain model's have but one kind of answers."""

    def missing(args: argparse.Namespace, lines: Sequence[Line]) -> set[Any]:
        return set(args.concurrency) - {line["concurrency"] for line in lines if line.get("stream", stream) == stream}

    return missing


def _first_sound(_args: argparse.Namespace, _limit_s: float) -> list[str]:
    return list(_FIRST_SOUND)


def _first_sound_missing(_args: argparse.Namespace, lines: Sequence[Line]) -> set[Any]:
    cases = {(voices, n) for voices in ("known", "new") for n in (1, _MANY_AT_ONCE)}
    return cases - {(line["voices"], line["concurrency"]) for line in lines if line.get("first_frames") is None}


def _first_frames(args: argparse.Namespace, _limit_s: float) -> list[str]:
    found = [*_FIRST_SOUND, "--voices", "known", "by-path", "--concurrency", str(_MANY_AT_ONCE)]
    return [*found, "--reference-root", str(clips_of(args.folder)), "--first-frames", *map(str, _FIRST_FRAMES)]


def _first_frames_missing(_args: argparse.Namespace, lines: Sequence[Line]) -> set[Any]:
    cases = {(voices, n) for voices in ("known", "by-path") for n in _FIRST_FRAMES}
    return cases - {(line["voices"], line.get("first_frames")) for line in lines}


def _profile(_args: argparse.Namespace, _limit_s: float) -> list[str]:
    return ["--running", *map(str, _PROFILED)]


def _profile_missing(_args: argparse.Namespace, lines: Sequence[Line]) -> set[Any]:
    return set(_PROFILED) - {line["running"] for line in lines if line.get("check") == "kernel"}  # which come last


def _listeners(args: argparse.Namespace, limit_s: float) -> list[str]:
    found = ["--audio-seconds", f"{args.audio_seconds:g}", *shlex.split(args.listeners_args)]
    return [*found, "--total-seconds", f"{limit_s - _END_S:.0f}"]


def _plain_listeners(args: argparse.Namespace, limit_s: float) -> list[str]:
    # Their lines are of the same benchmark as ours, and the search begins once the server is there.
    return [*_listeners(args, max(limit_s - args.plain_seconds, _LEAST_SEARCH_S)), "--label", PLAIN]


def _search_missing(_args: argparse.Namespace, lines: Sequence[Line]) -> set[Any]:
    """A load by itself leaves a line of this benchmark, too, and so does a search that had no time."""
    return set() if any(line.get("n_loads", 2) > 1 for line in lines) else {"all"}


def at_load(offered: float) -> Measure:
    """Whether the promise is kept with so many listeners offered."""

    def arguments(args: argparse.Namespace, limit_s: float) -> list[str]:
        return [*_listeners(args, limit_s), "--first", str(offered), "--most", str(offered)]

    def missing(_args: argparse.Namespace, lines: Sequence[Line]) -> set[Any]:
        return {offered} - {line["offered_listeners"] for line in lines}

    return Measure(
        "listeners", "listeners_load", arguments, missing, "load_seconds", least_s=_LEAST_SEARCH_S, may_fail=True
    )


_PLAIN_STREAMS = Measure("engine_ceiling", "engine_ceiling", _closed_loop, _clients_missing(True))
_PLAIN_LISTENERS = Measure(
    "engine_listeners", "listeners", _plain_listeners, _search_missing, "listeners_seconds", least_s=_LEAST_SEARCH_S
)
MEASURES = {
    "first-sound": Measure("first_sound", "first_sound", _first_sound, _first_sound_missing, can_be_silent=False),
    "first-frames": Measure("first_sound", "first_sound", _first_frames, _first_frames_missing, can_be_silent=False),
    "streams": Measure("serving", "serving", _streams, _clients_missing(True), ceiling=_PLAIN_STREAMS),
    "whole": Measure("serving", "serving", _closed_loop, _clients_missing(False)),
    "profile": Measure("step_profile", "step_profile", _profile, _profile_missing, can_be_silent=False),
    "listeners": Measure(
        "listeners",
        "listeners",
        _listeners,
        _search_missing,
        "listeners_seconds",
        ceiling=_PLAIN_LISTENERS,
        least_s=_LEAST_SEARCH_S,
    ),
}
DEFAULT_MEASURES = ("first-sound", "streams", "listeners")
