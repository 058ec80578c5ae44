"""How two threads of a process wake each other: an empty message on a socket that the listener polls anyway."""

import zmq


class Bell:
    """Wakes a thread that polls `socket`; rung once until it is answered, however often `ring` is called."""

    def __init__(self, context: zmq.Context, address: str) -> None:
        self.socket = context.socket(zmq.PULL)  # the listener's
        self.socket.bind(address)
        self._context = context
        self._address = address
        self._sender: zmq.Socket | None = None  # the ringer's; made in its thread
        self._rung = False

    def ring(self) -> None:
        if self._rung:
            return
        self._rung = True
        sender = self._sender
        if sender is None:
            sender = self._sender = self._context.socket(zmq.PUSH)
            sender.connect(self._address)
        sender.send(b"")

    def answer(self) -> bool:
        """Whether it was rung; what was rung for is visible from now on."""
        if not self._rung:
            return False
        self.socket.recv()  # on its way, if not here
        self._rung = False
        return True
