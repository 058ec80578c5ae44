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
base64 data or an address of the server's own network. A code is for programs, which say it in their own words.
"""

from typing import ClassVar, Literal, TypeAlias

Code: TypeAlias = Literal[
    # the text
    "bad_text",
    "no_words",
    "unknown_speaker",
    "no_speakers",
    "names_as_tags",
    "control_token",
    "unbroken_text",
    "context_full",
    "script_too_long",
    # settings
    "bad_request",
    "bad_setting",
    "brace",
    "language_name",
    "mode_misfit",
    "too_many_seconds",
    "field_missing",
    "field_not_taken",
    # clips and their transcripts
    "bad_clip",
    "clip_unreadable",
    "clip_too_large",
    "clip_too_long",
    "clip_too_short",
    "clip_silent",
    "transcript_empty",
    "transcript_missing",
    "transcript_speaker",
    "transcript_too_long",
    # stored voices
    "unknown_voice",
    "voices_gap",
    "voice_exists",
    "starter_voice",
    "too_many_voices",
    "bad_name",
    # what the page asks of others
    "no_design",
    "no_text",
    "cannot_fetch",
    "document_too_large",
    "helper_failed",
    # the server
    "not_found",
    "method_not_allowed",
    "wrong_key",
    "body_too_large",
    "body_timeout",
    "queue_full",
    "rate_limit_exceeded",
    "server_busy",
    "shutting_down",
    "server_failed",
]


class MossError(Exception):
    """Root of the tree: a failure on our side."""

    status: ClassVar[int] = 500
    code: Code = "server_failed"


class ServerBusy(MossError):  # noqa: N818 (named for what is wrong)
    """The server has as much to do as it takes on.

    Attributes:
        retry_after: seconds after which the same request may be taken.
    """

    status: ClassVar[int] = 503
    code = "server_busy"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BadRequest(MossError, ValueError):  # noqa: N818 (named for what the client sent)
    """A request that cannot be served as sent.

    A ValueError as well, because SGLang answers HTTP 400 to a ValueError raised while a request is processed, and
    HTTP 500 to anything else.

    Args:
        code: where there is a closer one than that of the class.
    """

    status: ClassVar[int] = 400
    code = "bad_request"

    def __init__(self, message: str, code: Code | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code


class BadText(BadRequest):
    """The text is empty, holds an unknown speaker tag, or holds a string that is a control token of the model."""

    code = "bad_text"


class BadReference(BadRequest):
    """A reference cannot be fetched, read or used."""

    code = "bad_clip"
    problem: str | None = None  # what is wrong with the clip, whatever its position

    @classmethod
    def at(cls, position: int, problem: str, code: Code | None = None) -> "BadReference":
        """The error for the reference at `position`, counted from 0; the message counts from 1, like speaker tags."""
        error = cls(f"reference {position + 1}: {problem}", code)
        error.problem = problem
        return error


class LongReference(BadReference):
    """A clip that could be read, and is longer than a reference may be."""

    code = "clip_too_long"


class BadSetting(BadRequest):
    """A setting has a value outside its range, or does not fit the rest of the request."""

    code = "bad_setting"


class PromptTooLong(BadRequest):
    """The prompt leaves no room in the context for audio."""

    code = "context_full"
