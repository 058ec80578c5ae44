"""What becomes of one HTTP request: written by whatever works for it, read by metrics and the access log at its end.

The outermost layer of the server opens a record; the context carries it to wherever the request is worked on, through
every task that is made on the way. Outside of a request (warm-up, offline engine) what is written is read by nobody.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sglang_moss.errors import MossError
from sglang_moss.request.preparation import Preparation

BAD_REQUEST = "bad_request"  # the word for whatever gets a 400


@dataclass
class RequestRecord:
    """One request. Times are `time.monotonic` seconds."""

    id: str = ""
    started: float = field(default_factory=time.monotonic)
    claim: Callable[[int], None] | None = None  # asks for as many places in the server as a batch needs, or raises
    preparation: Preparation = field(default_factory=Preparation)  # until the scheduler has it
    on_audio: Callable[[float, int], None] | None = None  # seconds and frames that have just come
    is_streamed: bool = False
    audio_seconds: float = 0.0
    first_audio: float | None = None  # when it came
    last_audio: float | None = None
    prompt_tokens: int = 0  # rows, of all texts
    cached_tokens: int = 0
    n_cached_references: int = 0
    n_encoded_references: int = 0
    finish_reason: str | None = None
    retry_after: float | None = None  # seconds, where the server was too busy for it
    refusal: str | None = None  # a word for why it was not served, where its status does not say
    problem: MossError | None = None  # what it was refused for, or failed of, by `keep_problem`
    _delivered: dict[str, tuple[float, int]] = field(default_factory=dict)  # by id: seconds, frames so far

    def keep_problem(self, error: MossError) -> None:
        """Keep what an error says, without the frames that it has come through: they hold the request's body."""
        self.problem = type(error).__new__(type(error), *error.args)
        vars(self.problem).update(vars(error))

    def take(self, answer: dict[str, Any]) -> None:
        """Read an answer of SGLang's, or one event of it."""
        meta = answer.get("meta_info") or {}
        rid, end = meta.get("id", ""), meta.get("finish_reason")
        before = self._delivered.get(rid, (0.0, 0))
        now = max(before, (meta.get("audio_seconds") or 0.0, meta.get("audio_frames") or 0))
        if now > before:
            self.last_audio = time.monotonic()
            self.first_audio = self.first_audio or self.last_audio
            self.audio_seconds += now[0] - before[0]
            if self.on_audio is not None:
                self.on_audio(now[0] - before[0], now[1] - before[1])
        self._delivered[rid] = now
        if "error" in answer:
            self.finish_reason = "abort"
        if end:
            del self._delivered[rid]
            self.prompt_tokens += meta.get("prompt_tokens") or 0
            self.cached_tokens += meta.get("cached_tokens") or 0
            if self.finish_reason != "abort":  # of a batch, what went wrong
                self.finish_reason = end.get("type")
            if end.get("status_code") == HTTPStatus.BAD_REQUEST:
                self.refusal = BAD_REQUEST

    def take_references(self, were_cached: list[bool]) -> None:
        """Count encodings that a request needed, by whether they were known."""
        self.n_cached_references += sum(were_cached)
        self.n_encoded_references += len(were_cached) - sum(were_cached)


_current: ContextVar[RequestRecord | None] = ContextVar("moss_request_record", default=None)


def current_record() -> RequestRecord:
    """The record of the request that this code works for."""
    return _current.get() or RequestRecord()


def open_record(record: RequestRecord) -> None:
    """Let the rest of this context write into `record`."""
    _current.set(record)
