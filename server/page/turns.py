"""`POST /page/turns`: when turns are heard in samples that the page has, by the rule that answers tell them by.

An answer does not tell them where it was stopped, nor where it continues clips: their transcripts stand in front of its
text, and only the page knows which turns are new.
"""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, UploadFile
from pydantic import BaseModel

from sglang_moss.errors import BadText
from sglang_moss.request.text import check_text
from sglang_moss.request.turns import turns_of
from sglang_moss.turn_times.timing import told_turns

from ..errors import BadField, SpeechRoute

_LEAST_RATE, _LARGEST_RATE = 8_000, 48_000  # Hz
_MOST_TURNS = 2_000
_BYTES_PER_SAMPLE = 2


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

    @router.post("/page/turns", include_in_schema=False)
    async def tell(
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
        samples = await audio.read()
        if not samples or len(samples) % _BYTES_PER_SAMPLE:
            raise BadField(f"audio: expected 16-bit samples, got {len(samples)} bytes", "audio")
        told = await told_turns(lambda: np.frombuffer(samples, "<i2"), rate, turns, is_cut=is_cut)
        return TurnsAnswer(turns=[TurnTimes(**turn) for turn in told])

    return router
