"""Everything a client raises on purpose, besides ValueError and OSError for arguments that cannot work.

    ClientError
    ├── ServerUnreachable     no connection, or it broke or ran out of time before the whole answer was there
    ├── ServerRefused         the server answered with an HTTP error: `status` and `message`
    └── UnusableAnswer        HTTP 200, but not the answer that was agreed: most likely another kind of server

A message is one line.
"""


class ClientError(Exception):
    """Root of the tree."""


class ServerUnreachable(ClientError):  # noqa: N818 (named for what happened)
    """No answer came from the server; whether it did the work is not known."""


class ServerRefused(ClientError):  # noqa: N818
    """The server answered with an error.

    Attributes:
        status: HTTP status; 4xx: the request must be mended, 5xx: the server failed.
        message: the server's own sentence.
        retry_after_s: seconds after which the server wants to be asked again, if it said so.
        code: the server's own, for programs, if it said one.
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None = None, code: str | None = None) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s
        self.code = code


class UnusableAnswer(ClientError):  # noqa: N818
    """The answer holds no speech in the agreed form."""
