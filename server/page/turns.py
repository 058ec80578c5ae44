"""`POST /page/turns`: when turns are heard in samples that the page has, by the rule that answers tell them by.

An answer does not tell them where it was stopped, nor where it continues clips: their transcripts stand in front of its
text, and only the page knows which turns are new.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, Request, UploadFile
from pydantic import BaseModel

from sglang_moss.errors import BadText
from sglang_moss.request.text import check_text
from sglang_moss.request.turns import turns_of
from sglang_moss.turn_times.timing import told_turns

from ..errors import BadField, SpeechRoute
from ..waiting import WaitingRoom, while_connected

_LEAST_RATE, _LARGEST_RATE = 8_000, 48_000  # Hz
_MOST_TURNS = 2_000
_BYTES_PER_SAMPLE = 2
_MOST_TURN_SECONDS = 100_000  # turns times seconds, as which the work grows: 166 turns in ten minutes
_THREADS = 1  # none of those that time what answers tell


class TurnTimes(BaseModel):
    """As the speech API tells it."""

    speaker: str | None
    start: float
    end: float
    text: str


class TurnsAnswer(BaseModel):
    """Turns that are heard, in order."""

    turns: list[TurnTimes]


def turns_router() -> APIRouter:
    """`POST /page/turns`."""
    router = APIRouter(route_class=SpeechRoute)
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="moss-page-turns")
    room = WaitingRoom()

    @router.post("/page/turns", include_in_schema=False)
    async def tell(
        request: Request,
        audio: Annotated[UploadFile, File()],
        script: Annotated[str, Form()],
        rate: Annotated[int, Form()],
        is_cut: Annotated[bool, Form()] = False,
    ) -> TurnsAnswer:
        """Of `audio`, 16-bit little-endian mono samples at `rate` Hz, in which `script` is spoken, or its beginning."""
        try:
            check_text(script, frozenset(), "script")
        except BadText as error:
            raise BadField(str(error), "script", error.code) from None
        turns = turns_of(script)
        if len(turns) > _MOST_TURNS:
            raise BadField(f"script: at most {_MOST_TURNS} turns with words, got {len(turns)}", "script")
        if not _LEAST_RATE <= rate <= _LARGEST_RATE:
            raise BadField(f"rate: of the samples in Hz, from {_LEAST_RATE} to {_LARGEST_RATE}", "rate")
        with room.place():
            samples = await audio.read()
            if not samples or len(samples) % _BYTES_PER_SAMPLE:
                raise BadField(f"audio: expected 16-bit samples, got {len(samples)} bytes", "audio")
            pcm = np.frombuffer(samples, "<i2")
            if len(turns) * len(pcm) > _MOST_TURN_SECONDS * rate:
                raise BadField(
                    f"script: {len(turns)} turns in {len(pcm) / rate:.0f} s are too much to be told at a time; ask for "
                    "fewer turns",
                    "script",
                    "script_too_long",
                )
            work = told_turns(lambda: pcm, rate, turns, is_cut=is_cut, pool=pool)
            told = await while_connected(request, work)
        return TurnsAnswer(turns=[TurnTimes(**turn) for turn in told])

    return router
