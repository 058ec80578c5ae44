"""Everything this package raises on purpose.

    MossError                  500  we failed
    ├── ServerBusy             503  we would take too long just now
    └── BadRequest             400  the client can mend it (also a ValueError)
        ├── BadText                 the text to speak, or a directive in front of it
        ├── BadReference            one reference clip, named by its position
        │   └── LongReference       longer than a reference may be
        ├── BadSetting              a sampling or mode setting
        └── PromptTooLong           text and references do not fit the context

A message is one sentence for the client: what was expected, what came, what to do. It never repeats a whole text,
base64 data or an address of the server's own network.
"""

from typing import ClassVar


class MossError(Exception):
    """Root of the tree: a failure on our side."""

    status: ClassVar[int] = 500


class ServerBusy(MossError):  # noqa: N818 (named for what is wrong)
    """The server has as much to do as it takes on.

    Attributes:
        retry_after: seconds after which the same request may be taken.
    """

    status: ClassVar[int] = 503

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BadRequest(MossError, ValueError):  # noqa: N818 (named for what the client sent)
    """A request that cannot be served as sent.

    A ValueError as well, because SGLang answers HTTP 400 to a ValueError raised while a request is processed, and
    HTTP 500 to anything else.
    """

    status: ClassVar[int] = 400


class BadText(BadRequest):
    """The text is empty, holds an unknown speaker tag, or holds a string that is a control token of the model."""


class BadReference(BadRequest):
    """A reference cannot be fetched, read or used."""

    problem: str | None = None  # what is wrong with the clip, whatever its position

    @classmethod
    def at(cls, position: int, problem: str) -> "BadReference":
        """The error for the reference at `position`, counted from 0; the message counts from 1, like speaker tags."""
        error = cls(f"reference {position + 1}: {problem}")
        error.problem = problem
        return error


class LongReference(BadReference):
    """A clip that could be read, and is longer than a reference may be."""


class BadSetting(BadRequest):
    """A setting has a value outside its range, or does not fit the rest of the request."""


class PromptTooLong(BadRequest):
    """The prompt leaves no room in the context for audio."""
