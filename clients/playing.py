"""Plays speech while it comes, by a player program that reads raw samples from a pipe."""

import queue
import shutil
import subprocess
import threading
from types import TracebackType
from typing import Self

_PLAYERS = {  # the first that is installed is taken; each reads 16-bit mono samples from its standard input
    "ffplay": "-loglevel error -nodisp -autoexit -f s16le -ar {rate} -ch_layout mono -i -",
    "pw-play": "--raw --format s16 --rate {rate} --channels 1 -",
    "paplay": "--raw --format=s16le --rate={rate} --channels=1",
    "aplay": "--quiet --file-type raw --format S16_LE --rate {rate} --channels 1",
    "play": "-q -t raw -e signed -b 16 -c 1 -r {rate} -",  # of SoX
}


class NoPlayer(ValueError):  # noqa: N818 (named for what is the matter)
    """No player program is installed."""


def player_program() -> str:
    """Name of the player that will be used.

    Raises:
        NoPlayer: none is installed.
    """
    for name in _PLAYERS:
        if shutil.which(name):
            return name
    raise NoPlayer(f"nothing to play sound with: install one of {', '.join(_PLAYERS)} (ffplay comes with FFmpeg)")


class Player:
    """A player program; what is written is played at its own pace, and leaving the `with` block waits for the end.

    Args:
        sample_rate: Hz.
    Raises:
        NoPlayer: none is installed.
        OSError: it cannot be started; or, when the block is left, it has failed.
    """

    def __init__(self, sample_rate: int) -> None:
        self._program = player_program()
        arguments = _PLAYERS[self._program].format(rate=sample_rate).split()
        # A session of its own: Ctrl-C reaches us alone, and we end it.
        self._process = subprocess.Popen([self._program, *arguments], stdin=subprocess.PIPE, start_new_session=True)
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._feeding = threading.Thread(target=self._feed, daemon=True)
        self._feeding.start()

    @property
    def has_ended(self) -> bool:
        """The program is gone, for instance since its user closed it."""
        return self._process.poll() is not None

    def write(self, pcm: bytes) -> None:
        """Have 16-bit little-endian mono samples played; does not wait."""
        self._waiting.put(pcm)

    def _feed(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None, "opened as a pipe"
        try:
            with pipe:
                while (pcm := self._waiting.get()) is not None:
                    pipe.write(pcm)
        except BrokenPipeError:
            pass  # it was closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._waiting.put(None)
                if status := self._process.wait():
                    raise OSError(f"the player {self._program} failed with status {status}")
        finally:
            self._process.kill()  # harmless where it has ended
            self._process.wait()
            self._waiting.put(None)
