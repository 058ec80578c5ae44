"""How two threads of a process wake each other: an empty message on a socket that the listener polls anyway."""

import zmq


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
