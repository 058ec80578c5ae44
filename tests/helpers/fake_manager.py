"""A stand-in for SGLang's tokenizer manager: yields what a test gives it, and keeps what it was asked."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from golden_data import GOLDEN

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.wav import wav_bytes
from sglang_moss.errors import MossError
from sglang_moss.request.first_sound import FirstSoundMarks
from sglang_moss.request.ranks import Ranks

SAMPLE_RATE = 24_000
FRAME_SAMPLES = 1_920
NO_HELPERS = {
    "design_url": None,
    "script_llm_url": None,
    "script_llm_model": None,
    "allow_private_reference_urls": False,
    "transcript_recogniser": "none",
    "transcript_model": None,
}


class _Tokenizer:
    def get_added_vocab(self) -> dict[str, int]:
        return {"<|im_end|>": 1}


@dataclass
class FakeManager:
    """What it answers to a request: events, or errors to raise, one after the other; a `threading.Event` among them
    is waited for."""

    script: Callable[[Any], Iterable[dict[str, Any] | Exception | threading.Event]]
    voices_dir: Path
    max_voices: int = 5
    max_req_input_len: int = 40_960
    pause_seconds: float = 0.0  # before each event
    learning_fails: bool = False
    voice_alias: list[str] | None = None
    default_voice: str | None = None
    whole_answers: bool = False
    profile: str | None = None
    sampling: dict[str, float] | None = None  # defaults that the checkpoint brings
    split_seconds: float | None = None  # the same
    max_request_bytes: int | None = None
    reference_max_seconds: float = ReferenceLimits.max_seconds
    starter_voices: str = "none"
    helpers: dict[str, Any] = field(default_factory=dict)  # server arguments of what the page can do beside speaking
    requests: list[Any] = field(default_factory=list)
    learned: list[bytes] = field(default_factory=list)  # clips that were to be encoded
    closed: list[str] = field(default_factory=list)  # ids of requests whose generator has ended, however it did
    # What else of SGLang's manager is reached for; nothing here ends a server.
    rid_to_state: dict[str, Any] = field(default_factory=dict)
    signal_handler_class: Any = None
    _subprocess_watchdog: Any = None

    def __post_init__(self) -> None:
        codec_config = json.loads((GOLDEN / "codec" / "config.json").read_text())
        own = {"profile": self.profile, "sampling": self.sampling, "split_seconds": self.split_seconds}
        own = {name: value for name, value in own.items() if value is not None}
        self.model_config = SimpleNamespace(hf_config=SimpleNamespace(codec_config=codec_config, sglang_moss=own))
        self.tokenizer = _Tokenizer()
        self.mm_processor = self
        self.ranks = Ranks(1)
        self.timed_turns: dict[str, Any] = {}
        self.first_sounds = FirstSoundMarks()
        self.server_args = SimpleNamespace(
            reference_limits=ReferenceLimits(max_seconds=self.reference_max_seconds),
            voices_dir=str(self.voices_dir),
            max_voices=self.max_voices,
            codec_addresses=["ipc:///nowhere"],
            dp_size=1,
            max_running_requests=2,
            max_queued_speech=100,
            rate_limit=None,
            max_request_bytes=self.max_request_bytes,
            request_body_seconds=30.0,
            enable_metrics=False,
            served_model_name="fake",
            access_log="off",
            shutdown_seconds=1.0,
            admin_api_key=None,
            max_audio_seconds=14_400.0,
            speech_length_factor=3.0,
            voice_alias=self.voice_alias,
            default_voice=self.default_voice,
            whole_answers=self.whole_answers,
            starter_voices=self.starter_voices,
            reference_cache_mb=256,
            **{**NO_HELPERS, **self.helpers},
        )

    def _dispatch_to_scheduler(self, message: Any) -> None:
        raise NotImplementedError

    def _handle_abort_req(self, request: Any) -> None:
        raise NotImplementedError

    async def learn(self, clip: bytes) -> None:
        if self.learning_fails:
            raise MossError("the codec failed")
        self.learned.append(clip)

    async def generate_request(self, request: Any, _http_request: None) -> AsyncGenerator[dict[str, Any], None]:
        self.requests.append(request)
        try:
            events = iter(self.script(request))
            while True:
                await asyncio.sleep(self.pause_seconds)
                event = next(events, None)
                if event is None:
                    return
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, threading.Event):
                    while not event.is_set():
                        await asyncio.sleep(0.01)
                    continue
                yield event
        finally:
            self.closed.append(request.rid)


def event(pcm: np.ndarray, finish_reason: dict[str, Any] | None = None) -> dict[str, Any]:
    """One event of a stream with [L] int16 samples."""
    text = base64.b64encode(wav_bytes(pcm, SAMPLE_RATE)).decode() if len(pcm) else ""
    meta = {"finish_reason": finish_reason, "prompt_tokens": 11, "completion_tokens": len(pcm) // FRAME_SAMPLES}
    return {"text": text, "meta_info": meta}


def frames_of(level: int, n_frames: int = 3) -> np.ndarray:
    """[L] int16 samples, all the same."""
    return np.full(n_frames * FRAME_SAMPLES, level, np.int16)


STOP = {"type": "stop"}
