"""What a client asks for, and what it makes of the answer; both clients share it, and all they add is the waiting.

arguments -> Call       -> one answer  -> Speech, Voice, ...
arguments -> StreamCall -> its bytes   -> StreamReader -> SpeechChunk, SpeechChunk, ...
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx

from .connection import check_success
from .errors import ServerUnreachable, UnusableAnswer
from .events import CUT_OFF, EventReader
from .profile import PROFILE_PATH, ServerProfile
from .request import VOICE_HEADER, Reference, Settings, request_body, voice_of
from .retrying import did_nothing, may_pass
from .speech import Speech, SpeechChunk, json_of
from .speech_request import SpeechSettings, Voices, speech_body
from .voices import VOICES_PATH, Voice, voice_path, voices_in

GENERATE_PATH = "/generate"
SPEECH_PATH = "/v1/audio/speech"

Answer = TypeVar("Answer")
Event = TypeVar("Event")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request that is answered as a whole.

    Attributes:
        method, path: of HTTP.
        content: what else `httpx` is told of the request.
        read: makes the answer of its body; raises UnusableAnswer.
        may_repeat: whether it may be sent again after a failure.
    """

    method: str
    path: str
    content: dict[str, Any]
    read: Callable[[bytes], Answer]
    may_repeat: Callable[[BaseException], bool] = may_pass


@dataclass(frozen=True)
class StreamCall(Generic[Event]):
    """A request that is answered by events.

    Attributes:
        path: it is POSTed there.
        content: what else `httpx` is told of the request.
        read: makes something of an event's data and the answer's headers; None: this event ends the answer. Raises
            ServerRefused or UnusableAnswer.
        is_last: whether an event is the last one; where none is, the answer was cut off. None: any may be.
        has_mark: whether `[DONE]` follows the last event.
    """

    path: str
    content: dict[str, Any]
    read: Callable[[bytes, httpx.Headers], Event | None]
    is_last: Callable[[Event], bool] | None = None
    has_mark: bool = True


class StreamReader(Generic[Event]):
    """The events of one answer, from its bytes as they come.

    Args:
        call: what was asked for.
        response: has been read where it is no success.
    Raises:
        ServerRefused: it is none.
    """

    def __init__(self, call: StreamCall[Event], response: httpx.Response) -> None:
        check_success(response)
        self._read = call.read
        self._is_last = call.is_last
        self._has_mark = call.has_mark
        self._headers = response.headers
        self._events = EventReader()
        self._has_last = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """What `piece` completes; an event is read when it is asked for, so that those before a failure are had."""
        for data in self._events.feed(piece):
            event = self._read(data, self._headers)
            if event is None:
                self._has_last = self._events.ended = True
                continue
            self._has_last |= self._is_last is not None and self._is_last(event)
            yield event

    def check_ended(self) -> None:
        """To be asked when no more bytes come; raises ServerUnreachable where the answer broke off.

        A proxy whose server has died may end an answer as if it were whole.
        """
        if self._is_last is not None and not self._has_last:
            raise ServerUnreachable(CUT_OFF)
        if self._has_mark:
            self._events.check_ended()


def encoded(body: dict[str, Any], *, stream: bool = False) -> bytes:
    """A request's body as it travels."""
    return json.dumps({**body, "stream": True} if stream else body).encode()


def generate(text: str, references: Sequence[Reference], settings: Settings) -> Call[Speech]:
    """See `MossClient.generate`."""
    body = request_body(text, references, settings)
    return Call("POST", GENERATE_PATH, _json(encoded(body), voice_of(body)), Speech.from_body)


def stream(text: str, references: Sequence[Reference], settings: Settings) -> StreamCall[SpeechChunk]:
    """See `MossClient.stream`."""
    body = request_body(text, references, settings)
    content = _json(encoded(body, stream=True), voice_of(body))
    return StreamCall(GENERATE_PATH, content, lambda data, _headers: SpeechChunk.from_event(data), _is_last)


def speech(text: str, voices: Voices | None, settings: SpeechSettings) -> StreamCall[SpeechChunk]:
    """See `MossClient.speech`."""
    body = speech_body(text, voices or {}, settings)
    return StreamCall(SPEECH_PATH, _json(encoded(body), voice_of(body)), _speech_event, _is_last, has_mark=False)


def profile() -> Call[ServerProfile]:
    """See `MossClient.profile`."""
    return Call("GET", PROFILE_PATH, {}, lambda body: ServerProfile.from_answer(json_of(body)))


def voices() -> Call[list[Voice]]:
    """See `MossClient.voices`."""
    return Call("GET", VOICES_PATH, {}, lambda body: voices_in(json_of(body)))


def add_voice(name: str, audio: bytes | str | Path, text: str | None) -> Call[Voice]:
    """See `MossClient.add_voice`."""
    data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
    form = {"data": {"name": name, "text": text or ""}, "files": {"audio": data}}
    return Call("POST", VOICES_PATH, form, lambda body: Voice.from_answer(json_of(body)), did_nothing)


def voice(name: str) -> Call[Voice]:
    """See `MossClient.voice`."""
    return Call("GET", voice_path(name), {}, lambda body: Voice.from_answer(json_of(body)))


def voice_clip(name: str) -> Call[bytes]:
    """See `MossClient.voice_clip`."""
    return Call("GET", f"{voice_path(name)}/clip", {}, bytes)


def replace_voice(name: str, audio: bytes | str | Path, text: str | None) -> Call[Voice]:
    """See `MossClient.replace_voice`."""
    data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
    form = {"data": {"text": text or ""}, "files": {"audio": data}}
    return Call("PUT", voice_path(name), form, lambda body: Voice.from_answer(json_of(body)))


def remove_voice(name: str) -> Call[None]:
    """See `MossClient.remove_voice`."""
    return Call("DELETE", voice_path(name), {}, lambda _body: None, did_nothing)


def unread(body: bytes) -> Call[bytes]:
    """An encoded request of `/generate`, whose answer is left as it comes."""
    return Call("POST", GENERATE_PATH, _json(body), bytes)


def unread_stream(body: bytes) -> StreamCall[bytes]:
    """An encoded request of `/generate` that streams, whose events are left as they come."""
    return StreamCall(GENERATE_PATH, _json(body), lambda data, _headers: data)


def _json(body: bytes, voice: str | None = None) -> dict[str, Any]:
    of_voice = {} if voice is None else {VOICE_HEADER: voice}
    return {"content": body, "headers": {"Content-Type": "application/json", **of_voice}}


def _is_last(chunk: SpeechChunk) -> bool:
    return chunk.finish_reason is not None


def _speech_event(data: bytes, headers: httpx.Headers) -> SpeechChunk | None:
    rate = headers.get("X-Sample-Rate", "")
    if not (rate.isdecimal() and int(rate)):
        raise UnusableAnswer("the answer does not tell its sample rate: does this server serve MOSS-TTSD?")
    return SpeechChunk.from_speech_event(data, int(rate))
