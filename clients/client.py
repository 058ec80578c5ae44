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

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self, Unpack

import httpx

from . import calls
from .calls import Answer, Call, Event, StreamCall, StreamReader
from .calls import encoded as encoded  # the benchmarks take it from here
from .connection import Connected, check_success
from .profile import ServerProfile
from .request import Reference, Settings
from .retrying import retrying
from .speech import Speech, SpeechChunk
from .speech_request import SpeechSettings, Voices
from .voices import Voice


class MossClient(Connected[httpx.Client]):
    """Sends requests over one pool of connections; may be used by several threads.

    Args:
        base_url: of the server.
        api_key: of the server, if it was started with one.
        timeout_s: how long to wait for more of an answer; one that does not stream comes all at once.
        retries: how often a request is sent again that found the server busy (HTTP 429, 503) or not at all (502 and
            504 of a proxy, too); a stream only as long as none of it has come, and what adds or removes a voice only
            where the server was busy or no connection was made.
    Raises:
        ValueError: no URL of a server, or a key that no HTTP header can carry.
    """

    _pool = httpx.Client

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
        return self._ask(calls.generate(text, references, settings))

    def stream(
        self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]
    ) -> Generator[SpeechChunk, None, None]:
        """Speak a text; the speech comes while it is made.

        Arguments and errors are those of `generate`; those about the arguments rise here, the others while iterating,
        also after some chunks. Closing the iterator early ends the request.
        """
        return self._stream(calls.stream(text, references, settings))

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
        return self._stream(calls.speech(text, voices, settings))

    def profile(self) -> ServerProfile:
        """Which model of the family the server has, and what it takes."""
        return self._ask(calls.profile())

    def voices(self) -> list[Voice]:
        """The voices that the server keeps, by name."""
        return self._ask(calls.voices())

    def add_voice(self, name: str, audio: bytes | str | Path, text: str | None = None) -> Voice:
        """Have the server keep a voice.

        Args:
            name: letters of any script, digits, blank, "_", "." and "-"; up to 64.
            audio: a clip of the voice (WAV, FLAC, OGG or MP3) as its bytes or its path.
            text: what is said in it.
        Raises:
            ClientError: `ServerRefused` 409: the name is taken.
            OSError: the file cannot be read.
        """
        return self._ask(calls.add_voice(name, audio, text))

    def voice(self, name: str) -> Voice:
        """One voice that the server keeps.

        Raises:
            ClientError: `ServerRefused` 404: there is none of that name.
        """
        return self._ask(calls.voice(name))

    def voice_clip(self, name: str) -> bytes:
        """The clip of a voice, the file as it was sent; errors are those of `voice`."""
        return self._ask(calls.voice_clip(name))

    def replace_voice(self, name: str, audio: bytes | str | Path, text: str | None = None) -> Voice:
        """Have the server keep a voice, in the place of the one of that name if there is one.

        Arguments and errors are those of `add_voice`, but that no name is taken.
        """
        return self._ask(calls.replace_voice(name, audio, text))

    def remove_voice(self, name: str) -> None:
        """Have the server forget a voice.

        Raises:
            ClientError: `ServerRefused` 404: there is none of that name.
        """
        self._ask(calls.remove_voice(name))

    def _ask(self, call: Call[Answer]) -> Answer:
        return call.read(retrying(self._retries, call.may_repeat)(self._send, call))

    def _send(self, call: Call[Any]) -> bytes:
        with self._reaching():
            response = self._http.request(call.method, call.path, **call.content)
        check_success(response)
        return response.content

    def _stream(self, call: StreamCall[Event]) -> Generator[Event, None, None]:
        """The events of an answer, which is asked for anew where it fails before the first of them."""

        def begin() -> tuple[Event | None, Generator[Event, None, None]]:
            events = self._events(call)
            return next(events, None), events

        first, rest = retrying(self._retries)(begin)
        with closing(rest):
            if first is not None:
                yield first
            yield from rest

    def _events(self, call: StreamCall[Event]) -> Generator[Event, None, None]:
        with self._reaching(), self._http.stream("POST", call.path, **call.content) as response:
            if not response.is_success:
                response.read()
            reader = StreamReader(call, response)
            for piece in response.iter_bytes():
                yield from reader.feed(piece)
        reader.check_ended()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
