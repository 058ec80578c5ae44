"""What SGLang's log says of the batches that a server has run."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE = re.compile(
    r"\[(?:(?P<date>[\d-]{10}) (?P<time>[\d:]{8}))?(?P<rank>[^\]]*)\] (?P<kind>Decode|Prefill) batch, (?P<facts>.*)"
)
_FACT = re.compile(r"#?(?P<name>[\w -]+?)(?: \(token/s\))?: (?P<value>[\d.]+)")


@dataclass(frozen=True)
class BatchLine:
    """One line on a batch.

    Attributes:
        date, time: as they are logged; None where a line has none.
        rank: of the scheduler, as it is logged.
        is_decode: it is on decoding; else on a prefill.
        facts: numbers by their names, such as `running-req`; a line that was cut off has fewer.
    """

    date: str | None
    time: str | None
    rank: str
    is_decode: bool
    facts: dict[str, float]


def batch_lines(log: Iterable[str]) -> Iterator[BatchLine]:
    """The lines of a log that are on batches, in order."""
    for match in filter(None, map(_LINE.search, log)):
        facts = {found["name"].strip(): float(found["value"]) for found in _FACT.finditer(match["facts"])}
        yield BatchLine(match["date"], match["time"], match["rank"], match["kind"] == "Decode", facts)
