"""When each turn of a speech is heard, as a server tells, and files of subtitles made of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import UnusableAnswer


@dataclass(frozen=True)
class SpokenTurn:
    """One turn.

    Attributes:
        speaker: "S1", ...; None: words in front of the first tag.
        start: in seconds from the beginning of the speech, estimated by the server.
        end: likewise.
        text: its words.
    """

    speaker: str | None
    start: float
    end: float
    text: str


def turns_in(answer: Any) -> list[SpokenTurn] | None:
    """The turns of a `meta_info` or of a last event; None where it tells none.

    Raises:
        UnusableAnswer: they are not as they should be.
    """
    told = answer.get("turns")
    if told is None:
        return None
    try:
        return [SpokenTurn(t["speaker"], float(t["start"]), float(t["end"]), str(t["text"])) for t in told]
    except (TypeError, KeyError, ValueError) as error:
        raise UnusableAnswer(f"the answer's turns cannot be read: {error!r}") from error


def srt(turns: Sequence[SpokenTurn]) -> str:
    """SubRip."""
    cues = [
        f"{i}\n{_clock(turn.start, ',')} --> {_clock(turn.end, ',')}\n{_named(turn)}\n"
        for i, turn in enumerate(turns, start=1)
    ]
    return "\n".join(cues)


def vtt(turns: Sequence[SpokenTurn]) -> str:
    """WebVTT, with the speaker as a voice."""
    cues = [f"{_clock(turn.start, '.')} --> {_clock(turn.end, '.')}\n{_voiced(turn)}\n" for turn in turns]
    return "\n".join(["WEBVTT\n", *cues])


def as_json(turns: Sequence[SpokenTurn]) -> str:
    """The turns as the server tells them."""
    return json.dumps([asdict(turn) for turn in turns], ensure_ascii=False, indent=2) + "\n"


_WRITERS: dict[str, Callable[[Sequence[SpokenTurn]], str]] = {".srt": srt, ".vtt": vtt, ".json": as_json}


def check_subtitles(path: Path) -> None:
    """Refuse what could not be written, before the server works for nothing.

    Raises:
        ValueError: no such folder, a folder itself, or a suffix that is not known.
    """
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(f"{path}: the suffix says the form of subtitles; known are {', '.join(_WRITERS)}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: name a file in a folder that is there")


def write_subtitles(path: Path, turns: Sequence[SpokenTurn]) -> None:
    """Write a file in the form that its suffix says; see `check_subtitles`."""
    path.write_text(_WRITERS[path.suffix.lower()](turns), encoding="utf-8")


def _clock(seconds: float, point: str) -> str:
    ms = max(0, round(seconds * 1000))
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def _named(turn: SpokenTurn) -> str:
    words = " ".join(turn.text.split())  # an empty line would end the cue
    return words if turn.speaker is None else f"{turn.speaker}: {words}"


def _voiced(turn: SpokenTurn) -> str:
    words = " ".join(turn.text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return words if turn.speaker is None else f"<v {turn.speaker}>{words}"
