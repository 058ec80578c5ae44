"""Several tenants with different voices and nothing else different: does anybody ever hear another's?"""

import asyncio
import random
from dataclasses import dataclass

import httpx

from ..loads.synthetic_voice import synthetic_clip
from .asking import Heard, Question, ask, client, generate, speech

_CLIP_SECONDS = 0.96  # 12 frames
_FRAMES = 12
_WORDS = "Good morning, everyone."
_NAME = "tenants-shared-name"
_VOICES = "/v1/audio/voices"


@dataclass(frozen=True)
class Crossings:
    """Answers, and those among them in a voice that was not asked for."""

    requests: int
    wrong: int


async def inline_voices(url: str, api_key: str | None, seed: int, n_tenants: int, n_rounds: int) -> Crossings:
    """Clips that come along, of one length and with one transcript: known ones and new files of the same sound."""
    choose = random.Random(seed)
    clips = [synthetic_clip(_CLIP_SECONDS, seed * 100 + tenant) for tenant in range(n_tenants)]
    text = f"[S1] {_WORDS} And so on."
    async with client(url, api_key) as server:
        alone = [await ask(server, generate(text, [clip], _FRAMES, seed)) for clip in clips]
        asked: list[tuple[int, Question]] = []
        for i in range(n_rounds * n_tenants):
            tenant = i % n_tenants
            # A chunk that nobody reads makes a file of its own: to the caches it is new, to the ear it is not.
            clip = clips[tenant] + b"junk\4\0\0\0%04d" % i if i % 3 == 0 else clips[tenant]
            key = {"extra_key": f"tenant-{tenant}"} if i % 4 == 0 else {}
            asked.append((tenant, generate(text, [clip], _FRAMES, seed, stream=bool(i % 2), **key)))
        choose.shuffle(asked)
        heard = await asyncio.gather(*(ask(server, question) for _, question in asked))
    distinct = len({answer.codes for answer in alone}) == n_tenants
    wrong = sum(not answer.equals(alone[tenant]) for (tenant, _), answer in zip(asked, heard, strict=True))
    return Crossings(len(asked), wrong if distinct else len(asked))


async def stored_voices(url: str, api_key: str | None, seed: int, n_rounds: int) -> Crossings:
    """One name that is removed and stored again with another clip, while others speak with it."""
    clips = [synthetic_clip(_CLIP_SECONDS, seed * 100 + 50 + i) for i in range(2)]
    question = speech("Hello there.", [], _FRAMES, await _speaking_seed(url, api_key, clips), voice=_NAME)
    n_requests = wrong = 0
    async with client(url, api_key) as server:
        alone: list[Heard] = []
        for clip in clips:
            await _store(server, clip)
            alone.append(await ask(server, question))
        for i in range(n_rounds):
            await _store(server, clips[i % 2])
            during = [asyncio.create_task(ask(server, question)) for _ in range(6)]
            await asyncio.sleep(0.05)
            await _store(server, clips[(i + 1) % 2])
            after = await asyncio.gather(*(ask(server, question) for _ in range(3)))
            n_requests += len(during) + len(after)
            wrong += sum(not answer.equals(alone[(i + 1) % 2]) for answer in after)
            for answer in await asyncio.gather(*during):
                # Between removing and storing there is no voice of this name: a 400 says so.
                is_whole = any(answer.equals(expected) for expected in alone)
                wrong += not is_whole and answer.status != httpx.codes.BAD_REQUEST
        await server.delete(f"{_VOICES}/{_NAME}")
    return Crossings(n_requests, wrong)


async def _speaking_seed(url: str, api_key: str | None, clips: list[bytes]) -> int:
    """A seed with which a model of any weights says something in both voices, and not the same."""
    async with client(url, api_key) as server:
        for seed in range(200):
            heard = [await ask(server, speech("Hello there.", [clip], _FRAMES, seed)) for clip in clips]
            if all(answer.pcm for answer in heard) and not heard[0].equals(heard[1]):
                return seed
    raise RuntimeError("the model says nothing in these voices")


async def _store(server: httpx.AsyncClient, clip: bytes) -> None:
    """Let the name stand for this clip, whatever it stood for."""
    await server.delete(f"{_VOICES}/{_NAME}")
    (await server.post(_VOICES, data={"name": _NAME}, files={"audio": ("a.wav", clip)})).raise_for_status()
