"""Server-sent events of a streaming answer: bytes to the data of each event, up to the one that says it is whole."""

from .errors import ServerUnreachable

CUT_OFF = "the stream broke off before its last event"
_END = b"[DONE]"
_PREFIX = b"data:"


class EventReader:
    """Cuts a stream of bytes, in whatever pieces it comes, into the data of its events."""

    def __init__(self) -> None:
        self.ended = False  # `[DONE]` has come
        self._pieces: list[bytes] = []  # of an event that is not whole; joined once, since events may be large

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes."""
        *whole, rest = piece.split(b"\n")
        lines = []
        for line in whole:
            lines.append(b"".join([*self._pieces, line]))
            self._pieces.clear()
        if rest:
            self._pieces.append(rest)
        data = [line.removeprefix(_PREFIX).strip() for line in lines if line.startswith(_PREFIX)]
        if _END in data:
            self.ended = True
            data = data[: data.index(_END)]
        return data

    def check_ended(self) -> None:
        """To be asked when no more bytes come.

        Raises:
            ServerUnreachable: the answer broke off.
        """
        if not self.ended:
            raise ServerUnreachable(CUT_OFF)
