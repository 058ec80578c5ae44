"""How two threads of a process wake each other: an empty message on a socket that the listener polls anyway.

And how long one that wakes waits for the interpreter, which another one has.
"""

import sys

import zmq

_SWITCH_INTERVAL_S = 0.0005


def switch_soon() -> None:
    """Let threads of this process have Python's lock soon after they ask for it.

    Python's own 5 ms is longer than what most of ours do at a time: a step's launches, reading a voice from its file,
    an event on its way to a client.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


class Wakeup:
    """Wakes a thread that polls `socket`; signalled once until it is cleared, however often `signal` is called."""

    def __init__(self, context: zmq.Context, address: str) -> None:
        self.socket = context.socket(zmq.PULL)  # the listener's
        self.socket.bind(address)
        self._context = context
        self._address = address
        self._sender: zmq.Socket | None = None  # the sender's; made in its thread
        self._is_set = False

    def signal(self) -> None:
        if self._is_set:
            return
        self._is_set = True
        sender = self._sender
        if sender is None:
            sender = self._sender = self._context.socket(zmq.PUSH)
            sender.connect(self._address)
        sender.send(b"")

    def clear(self) -> bool:
        """Whether it was signalled; what it was signalled for is visible from now on."""
        if not self._is_set:
            return False
        self.socket.recv()  # on its way, if not here
        self._is_set = False
        return True
