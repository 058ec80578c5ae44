"""The result of a judgement, as it is written to JSON: every item, the figures, and what they were made with.

`Result.read` refuses fields that it does not know, so that a file of another make is no result.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import CannotJudge


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Errors(_Record):
    """Errors in `n` words or characters of a script."""

    n: int
    substituted: int
    deleted: int
    inserted: int

    @property
    def count(self) -> int:
        return self.substituted + self.deleted + self.inserted

    @property
    def rate(self) -> float:
        return self.count / max(1, self.n)


class TurnScore(_Record):
    """One turn.

    Attributes:
        start_s, end_s: where the alignment found it, pauses around it cut off.
        similarities: cosine to the reference of each speaker; empty without references, or where the turn is too short.
    """

    speaker: int
    text: str
    start_s: float
    end_s: float
    similarities: dict[int, float]

    @property
    def counts(self) -> bool:
        """Whether it can be said whose voice this is: the speaker has a reference, and so has another one."""
        return self.speaker in self.similarities and len(self.similarities) > 1

    @property
    def nearest(self) -> int | None:
        return max(self.similarities, key=self.similarities.__getitem__) if self.similarities else None

    @property
    def similarity(self) -> float | None:
        """To the speaker's own reference."""
        return self.similarities.get(self.speaker)

    @property
    def is_right(self) -> bool:
        return self.nearest == self.speaker


class SignalScore(_Record):
    """What the samples tell without anybody listening; see `signal_checks`.

    Attributes:
        level_dbfs: of the speech.
        letters_per_second: of the text, over the sound without the silence at its ends.
        flags: what is wrong, by the names of `signal_checks.FLAGS`.
    """

    seconds: float
    level_dbfs: float
    clipped_samples: int
    silence_start_s: float
    silence_end_s: float
    longest_silence_s: float
    letters_per_second: float
    flags: list[str]


class ItemScore(_Record):
    """One item. Without speech, `problem` says why and the rest is empty.

    Attributes:
        audio: its file, relative to the folder of the result where it lies below it.
        said, heard: tokens as they are compared, see `spoken_words`, with a blank between two.
        heard_text: as the recogniser wrote it.
        notes: what could not be judged, and why.
    """

    id: str
    language: str
    audio: str | None
    problem: str | None = None
    said: str = ""
    heard: str = ""
    heard_text: str = ""
    words: Errors | None = None
    characters: Errors | None = None
    turns: list[TurnScore] = []
    signal: SignalScore | None = None
    notes: list[str] = []


class Figure(_Record):
    """A figure over all items, with the interval that holds it in 95 of 100 draws of as many items.

    Attributes:
        n: what it is over: words, characters or turns.
        n_items: items that have any; below 2 there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    n_items: int


class Result(_Record):
    """One run of the judge."""

    format: Literal["sglang-moss-eval"] = "sglang-moss-eval"
    format_version: Literal[1] = 1
    made_at: str
    dataset: str
    server: str | None
    settings: dict[str, str | int | float | bool | None]
    versions: dict[str, str]
    figures: dict[str, Figure]
    flags: dict[str, int]  # items with each of them
    n_failed: int
    items: list[ItemScore]

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Raises CannotJudge where the file is no result; OSError where it cannot be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise CannotJudge(f"{path} is no result of `moss-ttsd eval`: {where}: {first['msg']}") from None

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        beside = path.with_name(f".{path.name}.part")
        beside.write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
        beside.replace(path)
