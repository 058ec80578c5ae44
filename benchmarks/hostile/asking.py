"""Requests whose answers can be compared: what is asked, and what was heard, whichever endpoint said it."""

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from ...clients.events import EventReader

_TRIES = 20  # of a request that is told to come again
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Question:
    """One request for speech."""

    path: str
    body: dict[str, Any]

    @property
    def content(self) -> bytes:
        return json.dumps(self.body).encode()


@dataclass(frozen=True)
class Heard:
    """One answer.

    Attributes:
        status: of HTTP; None: the connection broke, or a stream ended without its end.
        codes: [T][n_vq], of `/generate`.
        pcm: [L] int16, of the speech endpoint.
        n_refusals: how often the server said that it is full.
    """

    status: int | None
    codes: tuple[tuple[int, ...], ...] | None = None
    pcm: bytes = b""
    n_refusals: int = 0

    def equals(self, other: "Heard") -> bool:
        """Equal codes; or samples within one step, since the codec rounds with the streams beside one."""
        if (self.status, self.codes, len(self.pcm)) != (other.status, other.codes, len(other.pcm)):
            return False
        difference = np.frombuffer(self.pcm, "<i2").astype(np.int32) - np.frombuffer(other.pcm, "<i2")
        return not len(difference) or int(np.abs(difference).max()) <= 1


def client(url: str, api_key: str | None) -> httpx.AsyncClient:
    """As many connections as are asked for."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.AsyncClient(
        base_url=url, headers=headers, timeout=_TIMEOUT_S, limits=httpx.Limits(max_connections=None), trust_env=False
    )


async def ask(server: httpx.AsyncClient, question: Question) -> Heard:
    """The answer, to the end. A server that is full is asked again when it says so."""
    for n_refusals in range(_TRIES):
        try:
            answer = await server.post(
                question.path, content=question.content, headers={"Content-Type": "application/json"}
            )
        except httpx.TransportError:
            return Heard(None, n_refusals=n_refusals)
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            return _read(question, answer, n_refusals)
        await asyncio.sleep(min(10.0, float(answer.headers["Retry-After"])))
    return Heard(httpx.codes.TOO_MANY_REQUESTS, n_refusals=_TRIES)


def _read(question: Question, answer: httpx.Response, n_refusals: int) -> Heard:
    status = answer.status_code
    if status != httpx.codes.OK:
        return Heard(status, n_refusals=n_refusals)
    if question.path != "/generate":
        return Heard(status, pcm=answer.content, n_refusals=n_refusals)
    if not question.body.get("stream"):
        return Heard(status, _codes_of([answer.json()["meta_info"]]), n_refusals=n_refusals)
    reader = EventReader()
    events = [json.loads(event) for event in reader.feed(answer.content)]
    metas = [event["meta_info"] for event in events if "meta_info" in event]
    end = metas[-1]["finish_reason"] if metas else None
    if not reader.ended or end is None:
        return Heard(None, n_refusals=n_refusals)
    if end["type"] == "abort":
        return Heard(end["status_code"], n_refusals=n_refusals)
    return Heard(status, _codes_of(metas), n_refusals=n_refusals)


def _codes_of(metas: list[dict[str, Any]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(frame) for meta in metas for frame in meta.get("audio_codes") or ())


def generate(text: str, clips: list[bytes], frames: int, seed: int, **more: Any) -> Question:
    """A request of a fixed length that gives its codes."""
    params = {
        "max_new_tokens": frames,
        "ignore_eos": True,
        "sampling_seed": seed,
        "custom_params": {"return_codes": True},
    }
    audio = {"audio_data": [base64.b64encode(clip).decode() for clip in clips]} if clips else {}
    return Question("/generate", {"text": text, **audio, "sampling_params": params, **more})


def speech(text: str, clips: list[bytes], frames: int, seed: int, **more: Any) -> Question:
    """The same of the speech endpoint, of whatever length the model likes; clips are cloned, not continued."""
    references = [{"audio": base64.b64encode(clip).decode()} for clip in clips]
    body = {"input": text, "response_format": "pcm", "max_seconds": frames * 0.08, "seed": seed, "normalize": False}
    return Question("/v1/audio/speech", {**body, **({"references": references} if clips else {}), **more})
