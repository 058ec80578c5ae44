"""The one bar of a run: records, hours of audio, times real time; where there is no terminal, a line a minute."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_MOST_SAID = 20  # problems that are printed; the file has all of them
_LINE_S = 60.0


class Progress:
    """A bar over the records of an input, and lines above it, on standard error.

    Args:
        n_records: of the input.
        shown: else nothing is printed, and everything may be called.
    """

    def __init__(self, n_records: int, *, shown: bool) -> None:
        self._shown = shown
        self._bar = tqdm(total=n_records, unit="record", disable=None if shown else True, dynamic_ncols=True)
        self._n_records, self._n_done = n_records, 0
        self._n_problems = 0
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.close()

    def records(self, n: int) -> None:
        """So many are done."""
        self._n_done += n
        self._bar.update(n)

    def encoded(self, seconds: float, since: float | None) -> None:
        """So much audio in all was encoded in this run, since a time of the monotonic clock."""
        now = time.monotonic()
        speed = seconds / max(1e-9, now - since) if since is not None else 0.0
        figures = f"{seconds / 3600:.2f} h, {speed:.0f} x real time"
        self._bar.set_postfix_str(figures, refresh=False)
        if self._bar.disable and now - self._last_line >= _LINE_S:
            self._last_line = now
            self.say(f"{self._n_done} of {self._n_records} records, {figures}")

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
            tqdm.write(sentence, file=sys.stderr)
