"""SGLang's tokenizer manager, asked for one session of speech at a time, exactly as `/generate` asks it."""

import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.wav import pcm_of_base64
from sglang_moss.codec.config import CodecConfig
from sglang_moss.config import profile_of
from sglang_moss.errors import BadRequest, MossError
from sglang_moss.request.prompt import special_strings

from ..errors import SpeechFailed

_OWN_WORDS = {"max_new_tokens": "max_seconds", "sampling_seed": "seed"}  # in a sentence about `/generate`
MAX_FRAMES = 2**31
_GRACE_SECONDS = 10.0  # a single word may be drawn out


@dataclass(frozen=True)
class Session:
    """What `/generate` would be sent."""

    text: str
    audio_data: list[bytes | str] | None
    sampling_params: dict[str, Any]


@dataclass(frozen=True)
class Heard:
    """One event of a session."""

    pcm: np.ndarray  # [L] int16, new samples only
    meta: dict[str, Any]  # `meta_info`


@dataclass(frozen=True)
class SpeechLimits:
    """How long a speech may become.

    Attributes:
        max_seconds: of one request.
        factor: times the length that a script suggests, and a little more, at which it is cut where the request names
            no length; 0: never.
    """

    max_seconds: float
    factor: float

    def frames_of(self, estimates: Sequence[float], engine: "Engine") -> list[int] | None:
        """Frames at which scripts that take about so many seconds are cut; None: nowhere."""
        if not self.factor:
            return None
        return [engine.frames_in(self.factor * seconds + _GRACE_SECONDS) for seconds in estimates]


class Engine:
    """Speaks sessions. Belongs to the event loop of the HTTP process.

    Args:
        manager: SGLang's `TokenizerManager`.
        request_type: what it takes, SGLang's `GenerateReqInput`.
    """

    def __init__(self, manager: Any, request_type: Callable[..., Any]) -> None:
        codec = CodecConfig.from_dict(manager.model_config.hf_config.codec_config)
        self.profile = profile_of(manager.model_config.hf_config)
        self._manager = manager
        self._request_type = request_type
        self.sample_rate = codec.sampling_rate  # Hz
        self.frame_samples = codec.frame_samples
        self.frames_per_second = codec.frame_rate
        self.limits: ReferenceLimits = manager.server_args.reference_limits
        self.speech_limits = SpeechLimits(
            manager.server_args.max_audio_seconds, manager.server_args.speech_length_factor
        )
        self.special_strings = special_strings(manager.tokenizer)

    @property
    def context_rows(self) -> int:
        """Rows that prompt and speech of one session may have together."""
        return self._manager.max_req_input_len

    def frames_in(self, seconds: float) -> int:
        """Whole frames in a length of time, however long a client says it is."""
        return math.floor(min(seconds * self.frames_per_second, MAX_FRAMES) + 1e-6)

    async def learn(self, clip: bytes) -> None:
        """Encode a reference clip, to be known when it is used.

        Raises:
            MossError: the codec failed.
        """
        await self._manager.mm_processor.learn(clip)

    async def speak(self, session: Session, rid: str) -> AsyncGenerator[Heard, None]:
        """One session's speech, as it is made. Closing this generator ends the session.

        Raises:
            BadRequest: it cannot be spoken; nothing has been yielded.
            SpeechFailed: it broke off.
            HTTPException: SGLang's own refusal.
        """
        request = self._request_type(
            rid=rid,
            text=session.text,
            audio_data=session.audio_data,
            sampling_params=_strictly(session.sampling_params),
            stream=True,
        )
        try:
            async with contextlib.aclosing(self._manager.generate_request(request, None)) as answers:
                async for answer in answers:
                    meta = answer["meta_info"]
                    _check_end(meta.get("finish_reason"))
                    yield Heard(_samples_of(answer.get("text")), meta)
        except MossError:
            raise
        except ValueError as error:  # SGLang's way to say 400
            raise BadRequest(_in_own_words(str(error))) from error


def _strictly(settings: dict[str, Any]) -> dict[str, Any]:
    """These settings, with lengths and clips taken at their word."""
    return {**settings, "custom_params": {**settings.get("custom_params", {}), "strict": True}}


def _check_end(finish_reason: Any) -> None:
    """SGLang ends a stream that failed with an ordinary event."""
    if not isinstance(finish_reason, dict) or finish_reason.get("type") != "abort":
        return
    message = _in_own_words(finish_reason.get("message") or "the speech was aborted")
    status = int(finish_reason.get("status_code") or HTTPStatus.INTERNAL_SERVER_ERROR)
    code = finish_reason.get("code")
    raise BadRequest(message, code) if status == HTTPStatus.BAD_REQUEST else SpeechFailed(message, status, code)


def _samples_of(wav_base64: str | None) -> np.ndarray:
    """[L] int16 of one event's WAV; none where the event has no sound."""
    return pcm_of_base64(wav_base64) if wav_base64 else np.empty(0, np.int16)


def _in_own_words(message: str) -> str:
    """A sentence about `/generate` with the names that the speech API has for its fields."""
    for theirs, ours in _OWN_WORDS.items():
        message = message.replace(theirs, ours)
    return message
