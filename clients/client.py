"""The client that waits; `async_client` has the one for asyncio.

with MossClient("http://127.0.0.1:30000") as client:
    speech = client.generate("[S1] Hello. [S2] Hi.", [Reference("a.wav", "..."), Reference("b.wav", "...")], seed=1)
    Path("out.wav").write_bytes(speech.wav)
    for chunk in client.stream("[S1] Hello."):
        player.write(chunk.pcm)
    client.add_voice("alice", "alice.wav", "Good morning, everyone.")
    for chunk in client.speech("[S1] Hello. [S2] Hi.", {1: "alice", 2: Reference("b.wav", "...")}):
        player.write(chunk.pcm)
"""

import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import httpx

from .connection import DEFAULT_RETRIES, DEFAULT_TIMEOUT_S, DEFAULT_URL, connection, refusal, unreachable
from .errors import UnusableAnswer
from .events import EventReader
from .request import Reference, Settings, request_body
from .retrying import did_nothing, retrying
from .speech import Speech, SpeechChunk, json_of
from .speech_request import SpeechSettings, Voices, speech_body
from .voices import VOICES_PATH, Voice, voice_path, voices_in

GENERATE_PATH = "/generate"
SPEECH_PATH = "/v1/audio/speech"
JSON = {"Content-Type": "application/json"}
ReadEvent = Callable[[bytes, httpx.Headers], SpeechChunk | None]  # None: the event that ends the answer


class MossClient:
    """Sends requests over one pool of connections; may be used by several threads.

    Args:
        base_url: of the server.
        api_key: of the server, if it was started with one.
        timeout_s: how long to wait for more of an answer; one that does not stream comes all at once.
        retries: how often a request is sent again that found the server busy (HTTP 429, 503) or not at all (502 and
            504 of a proxy, too); a stream only as long as none of it has come, and what adds or removes a voice only
            where the server was busy.
    Raises:
        ValueError: no URL of a server, or a key that no HTTP header can carry.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        self._http = httpx.Client(**connection(base_url, api_key, timeout_s))
        self._retrying = retrying(retries)
        self._retrying_change = retrying(retries, did_nothing)

    def generate(self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]) -> Speech:
        """Speak a text.

        Args:
            text: a script, `[S1] ... [S2] ...`; directives may stand in front of it.
            references: clips of the speakers, [S1] first.
            settings: see `Settings`.
        Raises:
            ClientError: see `errors`.
            ValueError, OSError: see `request_body`; nothing was sent.
        """
        body = encoded(request_body(text, references, settings))
        response = self._retrying(self._request, "POST", GENERATE_PATH, content=body, headers=JSON)
        return Speech.from_body(response.content)

    def stream(
        self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]
    ) -> Generator[SpeechChunk, None, None]:
        """Speak a text; the speech comes while it is made.

        Arguments and errors are those of `generate`; those about the arguments rise here, the others while iterating,
        also after some chunks. Closing the iterator early ends the request.
        """
        body = encoded(request_body(text, references, settings), stream=True)
        return self._streamed(GENERATE_PATH, body, read_event)

    def speech(
        self, text: str, voices: Voices | None = None, **settings: Unpack[SpeechSettings]
    ) -> Generator[SpeechChunk, None, None]:
        """Speak a script of any length, with stored voices or clips; the speech comes while it is made.

        The official `openai` client speaks to the same endpoint and knows its other audio formats.

        Args:
            text: a script; words without a speaker tag are [S1]'s. It is normalised unless `normalize` is False.
            voices: by speaker, 1 for [S1], without a gap: the name of a stored voice, or a clip.
            settings: see `SpeechSettings`.
        Raises:
            ClientError: while iterating, also after some chunks. Closing the iterator early ends the request.
            OSError: at once; a clip's file cannot be read.
        """
        body = encoded(speech_body(text, voices or {}, settings))
        return self._streamed(SPEECH_PATH, body, read_speech_event)

    def voices(self) -> list[Voice]:
        """The voices that the server keeps, by name."""
        return voices_in(json_of(self._retrying(self._request, "GET", VOICES_PATH).content))

    def add_voice(self, name: str, audio: bytes | str | Path, text: str | None = None) -> Voice:
        """Have the server keep a voice.

        Args:
            name: letters, digits, blank, "_", "." and "-"; up to 64.
            audio: a clip of the voice (WAV, FLAC, OGG or MP3) as its bytes or its path.
            text: what is said in it.
        Raises:
            ClientError: `ServerRefused` 409: the name is taken.
            OSError: the file cannot be read.
        """
        data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
        form = {"name": name, "text": text or ""}
        response = self._retrying_change(self._request, "POST", VOICES_PATH, data=form, files={"audio": data})
        return Voice.from_answer(json_of(response.content))

    def remove_voice(self, name: str) -> None:
        """Have the server forget a voice.

        Raises:
            ClientError: `ServerRefused` 404: there is none of that name.
        """
        self._retrying_change(self._request, "DELETE", voice_path(name))

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **content)
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error
        if not response.is_success:
            raise refusal(response)
        return response

    def _streamed(self, path: str, body: bytes, read: ReadEvent) -> Generator[SpeechChunk, None, None]:
        """The chunks of an answer, which is asked for anew where it fails before the first of them."""

        def begin() -> tuple[list[SpeechChunk], Generator[SpeechChunk, None, None]]:
            chunks = self._chunks(path, body, read)
            first = next(chunks, None)
            return ([] if first is None else [first]), chunks

        first, rest = self._retrying(begin)
        yield from first
        yield from rest

    def _chunks(self, path: str, body: bytes, read: ReadEvent) -> Generator[SpeechChunk, None, None]:
        events = EventReader()
        try:
            with self._http.stream("POST", path, content=body, headers=JSON) as response:
                if not response.is_success:
                    response.read()
                    raise refusal(response)
                for piece in response.iter_bytes():
                    for data in events.feed(piece):
                        chunk = read(data, response.headers)
                        if chunk is None:
                            events.ended = True
                        else:
                            yield chunk
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error
        events.check_ended()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def encoded(body: dict[str, Any], *, stream: bool = False) -> bytes:
    """A request's body as it travels."""
    return json.dumps({**body, "stream": True} if stream else body).encode()


def read_event(data: bytes, _headers: httpx.Headers) -> SpeechChunk | None:
    """An event of `/generate`."""
    return SpeechChunk.from_event(data)


def read_speech_event(data: bytes, headers: httpx.Headers) -> SpeechChunk | None:
    """An event of `/v1/audio/speech`."""
    rate = headers.get("X-Sample-Rate", "")
    if not (rate.isdecimal() and int(rate)):
        raise UnusableAnswer("the answer does not tell its sample rate: does this server serve MOSS-TTSD?")
    return SpeechChunk.from_speech_event(data, int(rate))
