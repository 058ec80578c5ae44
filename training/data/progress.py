"""The one bar of a run: records, hours of audio, times real time."""

import time
from types import TracebackType

from tqdm import tqdm

_MOST_SAID = 20  # problems that are printed; the file has all of them


class Progress:
    """A bar over the records of an input, and lines above it.

    Args:
        n_records: of the input.
        shown: else nothing is printed, and everything may be called.
    """

    def __init__(self, n_records: int, *, shown: bool) -> None:
        self._shown = shown
        self._bar = tqdm(total=n_records, unit="record", disable=None if shown else True, dynamic_ncols=True)
        self._n_problems = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.close()

    def records(self, n: int) -> None:
        """So many are done."""
        self._bar.update(n)

    def encoded(self, seconds: float, since: float | None) -> None:
        """So much audio in all was encoded in this run, since a time of the monotonic clock."""
        speed = seconds / max(1e-9, time.monotonic() - since) if since is not None else 0.0
        self._bar.set_postfix_str(f"{seconds / 3600:.2f} h, {speed:.0f} x real time", refresh=False)

    def problem(self, sentence: str) -> None:
        """Print a problem, if it is among the first."""
        self._n_problems += 1
        if self._n_problems <= _MOST_SAID:
            self.say(sentence)
        if self._n_problems == _MOST_SAID:
            self.say("further problems are in rejected.jsonl, at the end")

    def say(self, sentence: str) -> None:
        """Print a line."""
        if self._shown:
            tqdm.write(sentence, file=self._bar.fp)
