"""The samples of one speech, part after part.

Parts are spoken one after the other, and each continues what is known word for word of those before it:

    with voices of known words    voices + the part before                 mode `continuation`
    without voices                the opening + the part before            the opening is what keeps the voice
    voices that are only cloned   voices                                   nothing can be carried

A part that came out longer than a clip may be is not carried: where its last turns begin in it, nobody knows. Nor is
one that came out silent, which no clip may be.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from sglang_moss.audio.wav import wav_bytes

from .crossfade import Crossfade
from .plan import Clip, SpeechPlan
from .sessions import Engine, Session
from .turn_clock import TurnClock

_CROSSFADE_SECONDS = 0.01
_SILENCE = 33  # of an int16: -60 dBFS, as for clips


class Narration:
    """One speech being made.

    Attributes:
        id: begins the id of each of its sessions.
        usage: tokens so far, as OpenAI counts them.
        finish_reason: "stop": so far it came to its ends by itself; "length": it was cut.
        turns: once it is over, and where times were asked for, each turn with them, as answers have it.
    """

    turns: list[dict[str, Any]] | None = None

    def __init__(self, engine: Engine, plan: SpeechPlan, request_id: str) -> None:
        self.id = request_id
        self.usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        self.finish_reason = "stop"
        self.sample_rate = engine.sample_rate
        self._engine = engine
        self._plan = plan
        self._is_cut = False  # the last part
        self._n_samples = 0  # spoken, before parts are joined

    async def pcm(self) -> AsyncGenerator[np.ndarray, None]:
        """[L] int16 samples, as they are made; L may be 0. Closing this ends what is being spoken.

        Raises:
            MossError, HTTPException: as `Engine.speak`, for any part.
        """
        plan, engine = self._plan, self._engine
        n_parts = len(plan.parts)
        crossfade = Crossfade(int(_CROSSFADE_SECONDS * engine.sample_rate) if n_parts > 1 else 0)
        clock = None if plan.timed is None else TurnClock(plan.timed, engine.sample_rate, plan.speed)
        earlier: list[Clip] = []
        for i in range(n_parts):
            n_frames = self._n_samples // engine.frame_samples
            if n_frames >= plan.max_frames:
                self.finish_reason = "length"
                break
            if i:
                crossfade.next_part()
            session = plan.session(i, n_frames, earlier)
            spoken: list[np.ndarray] = []
            async with contextlib.aclosing(self._speak(session, i)) as samples:
                async for pcm in samples:
                    if clock is not None or (i + 1 < n_parts and plan.can_carry):
                        spoken.append(pcm)
                    yield crossfade.add(pcm)
            if clock is not None:
                clock.take_part(plan.parts[i], spoken, crossfade.n_overlap, is_cut=self._is_cut)
            earlier = self._carried(earlier, i, spoken)
        yield crossfade.finish()
        if clock is not None:
            self.turns = await clock.turns()

    async def _speak(self, session: Session, i: int) -> AsyncGenerator[np.ndarray, None]:
        meta: dict[str, Any] = {}
        async with contextlib.aclosing(self._engine.speak(session, f"{self.id}-{i:06}")) as events:
            async for event in events:
                meta = event.meta
                self._n_samples += len(event.pcm)
                yield event.pcm
        self._is_cut = (meta.get("finish_reason") or {}).get("type") == "length"
        if self._is_cut:
            self.finish_reason = "length"
        self.usage["input_tokens"] += meta.get("prompt_tokens", 0)
        self.usage["output_tokens"] += meta.get("completion_tokens", 0)
        self.usage["total_tokens"] = self.usage["input_tokens"] + self.usage["output_tokens"]

    def _carried(self, earlier: list[Clip], i: int, spoken: list[np.ndarray]) -> list[Clip]:
        """What the part after part `i` goes by."""
        plan, limits = self._plan, self._engine.limits
        anchor = [] if plan.voices else earlier[:1]
        is_heard = any(np.abs(pcm.astype(np.int32)).max(initial=0) > _SILENCE for pcm in spoken)
        n_samples = sum(map(len, spoken)) if is_heard else 0
        wav = wav_bytes(np.concatenate(spoken), self.sample_rate) if n_samples else b""
        fits = n_samples <= limits.max_seconds * self.sample_rate and len(wav) <= limits.max_bytes
        if n_samples and fits and len(anchor) < plan.can_carry:
            return [*anchor, Clip(wav, plan.parts[i])]
        return anchor
