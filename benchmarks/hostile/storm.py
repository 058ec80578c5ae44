"""Many clients at once, of which a third leaves at some moment, from the first byte it sends to the last it is sent."""

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from ..loads.synthetic_voice import synthetic_clip
from .asking import Heard, Question, ask, client, generate, speech

_ARRIVAL_SECONDS = 2.0  # in which all clients come
_MOMENTS = ("connecting", "sending", "waiting", "listening", "reading")
_KINDS = 12  # different requests
_ENDLESS_FRAMES = 20_000
_IDLE_SECONDS = 120.0


@dataclass(frozen=True)
class Storm:
    """What became of the clients that stayed.

    Attributes:
        wrong: answers that differ from what the same request gives alone.
        lost: connections that broke, and streams without an end.
        failed: answers with a status of 500 or above.
        refused: times that somebody was told to come again.
    """

    requests: int
    left: int
    answered: int
    wrong: int
    lost: int
    failed: int
    refused: int


async def storm(url: str, api_key: str | None, seed: int, n_clients: int) -> Storm:
    """One storm; before it, every request alone, and after it, none is left in the server.

    Raises:
        TimeoutError: requests that nobody waits for are still running.
    """
    choose = random.Random(seed)
    asked = questions(seed)
    async with client(url, api_key) as server:
        alone = [await ask(server, question) for question in asked]
        staying: list[asyncio.Task[tuple[int, Heard]]] = []
        leaving: list[asyncio.Task[None]] = []

        async def stay(number: int, after: float) -> tuple[int, Heard]:
            await asyncio.sleep(after)
            return number, await ask(server, asked[number])

        for i in range(n_clients):
            after = choose.uniform(0, _ARRIVAL_SECONDS)
            if i % 3 == 0:
                leaving.append(asyncio.create_task(_leave(url, api_key, seed * 10_000 + i, after)))
            else:
                staying.append(asyncio.create_task(stay(choose.randrange(len(asked)), after)))
        heard = await asyncio.gather(*staying)
        await asyncio.gather(*leaving)
        await wait_until_idle(server)
    answers = [answer for _, answer in heard]
    return Storm(
        requests=n_clients,
        left=len(leaving),
        answered=sum(answer.status is not None for answer in answers),
        wrong=sum(a.status is not None and not a.equals(alone[number]) for number, a in heard),
        lost=sum(answer.status is None for answer in answers),
        failed=sum((answer.status or 0) >= httpx.codes.INTERNAL_SERVER_ERROR for answer in answers),
        refused=sum(answer.n_refusals for answer in answers),
    )


def questions(seed: int) -> list[Question]:
    """Requests of different lengths, voices and endpoints."""
    clips = [synthetic_clip(0.8, seed * 10 + i) for i in range(3)]
    asked = []
    for i in range(_KINDS):
        text, voices, frames = f"[S1] Number {i}. [S2] Yes.", clips[: i % 3], 3 + 7 * i % 40
        match i % 3:
            case 0:
                asked.append(generate(text, voices, frames, seed + i))
            case 1:
                asked.append(generate(text, voices, frames, seed + i, stream=True))
            case _:
                asked.append(speech(text, voices, frames, seed + i))
    return asked


async def wait_until_idle(server: httpx.AsyncClient) -> None:
    """
    Raises:
        TimeoutError: something still runs.
    """
    async with asyncio.timeout(_IDLE_SECONDS):
        while True:
            loads = (await server.get("/v1/loads")).json()["loads"]
            if not any(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads):
                return
            await asyncio.sleep(0.5)


async def _leave(url: str, api_key: str | None, seed: int, after: float) -> None:
    """One client that does not wait for the end."""
    choose = random.Random(seed)
    moment = choose.choice(_MOMENTS)
    await asyncio.sleep(after)
    frames = _ENDLESS_FRAMES if moment == "listening" else 30
    asked = generate("[S1] Hello.", [synthetic_clip(0.5, seed % 7)] * choose.randrange(2), frames, seed)
    content = json.dumps({**asked.body, "stream": moment == "listening" or choose.random() < 0.5}).encode()
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    try:
        if moment != "connecting":
            whole = _head(asked.path, len(content), api_key) + content
            writer.write(whole if moment != "sending" else whole[: choose.randrange(10, len(whole))])
            await writer.drain()
        match moment:
            case "waiting":
                await asyncio.sleep(choose.uniform(0, 1))
            case "listening" | "reading":
                await reader.read(choose.randrange(1, 60_000))
    except ConnectionError:
        pass  # the server was first
    finally:
        if choose.random() < 0.5:
            writer.transport.abort()  # a reset, as of a process that was killed
        else:
            writer.close()


def _head(path: str, n_bytes: int, api_key: str | None) -> bytes:
    lines: list[Any] = [f"POST {path} HTTP/1.1", "Host: server", "Content-Type: application/json"]
    lines += [f"Content-Length: {n_bytes}", *([f"Authorization: Bearer {api_key}"] if api_key else [])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
