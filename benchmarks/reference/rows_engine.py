"""SGLang's offline engine with our plugin, fed prompt rows or requests, many at once; on whatever device it finds.

Rows serve golden language-model cases; for them only the prompt builder is left out.
"""

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.multimodal_item import envelope
from sglang_moss.request.prompt import SpeechPrompt
from sglang_moss.request.settings import RequestOptions
from sglang_moss.request.speech import SpeechRequest


@dataclass(frozen=True)
class RowsAnswer:
    """What one prompt gave."""

    text_ids: list[int]  # column 0 of every generated row
    codes: np.ndarray  # [frames, n_vq]; none where there was no whole frame
    wav_base64: str
    meta: dict[str, Any]
    error: str | None


class RowsEngine:
    """Context manager over `sglang.Engine`; keyword arguments are SGLang's server arguments."""

    def __init__(self, model_path: str, **engine_args: Any) -> None:
        from sglang import Engine

        self._before = _process_settings()
        self._engine = Engine(model_path=model_path, delay_pattern=True, **engine_args)
        processor = self._engine.tokenizer_manager.mm_processor
        self._process_request = processor.process_mm_data_async
        processor.process_mm_data_async = self._process
        self._tokens: SpecialTokens = processor.hf_config.special_tokens()
        self._prompts: dict[str, SpeechPrompt] = {}

    def __enter__(self) -> "RowsEngine":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._engine.shutdown()
        _restore(self._before)

    def generate(self, prompts: Sequence[SpeechPrompt], settings: Sequence[dict[str, Any]]) -> list[RowsAnswer]:
        """Send all prompts at once; `settings` are `sampling_params`, with `max_new_tokens` counting rows."""
        names = [f"prompt {len(self._prompts) + i}" for i in range(len(prompts))]
        self._prompts |= dict(zip(names, prompts, strict=True))
        return self.ask([{"text": n, "sampling_params": s} for n, s in zip(names, settings, strict=True)])

    def ask(self, requests: Sequence[dict[str, Any]]) -> list[RowsAnswer]:
        """Send requests at once: bodies of `/generate` with `text`, `sampling_params` and perhaps `audio_data`."""
        return self._engine.loop.run_until_complete(_gather([self._one(request) for request in requests]))

    def flush_cache(self) -> None:
        """Forget every cached prefix."""
        self._engine.flush_cache()

    async def _one(self, request: dict[str, Any]) -> RowsAnswer:
        settings = request["sampling_params"]
        settings = {**settings, "custom_params": {**settings.get("custom_params", {}), "return_codes": True}}
        try:
            answer = await self._engine.async_generate(
                prompt=request["text"], sampling_params=settings, audio_data=request.get("audio_data")
            )
        except ValueError as error:
            return RowsAnswer([], np.empty((0, self._tokens.n_vq), int), "", {}, str(error))
        meta = answer["meta_info"]
        codes = np.array(meta.pop("audio_codes")).reshape(-1, self._tokens.n_vq)
        return RowsAnswer(answer["output_ids"], codes, answer["text"], meta, None)

    async def _process(self, request_obj: Any, **arguments: Any) -> Any:
        """Stands in for `MossTTSDProcessor.process_mm_data_async` where the prompt is one of ours."""
        prompt = self._prompts.get(request_obj.text)
        if prompt is None:
            return await self._process_request(request_obj=request_obj, **arguments)
        options = RequestOptions.parse(request_obj.sampling_params)
        request_obj.sampling_params = {"max_new_tokens": options.max_frames, "temperature": 0.0}
        return envelope(SpeechRequest(prompt, options, reference_cached=False), self._tokens.pad_code)


def _process_settings() -> tuple[Any, dict[int, Any]]:
    """What SGLang's engine changes for the whole process."""
    signals = (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD)
    return asyncio.get_event_loop_policy(), {number: signal.getsignal(number) for number in signals}


def _restore(settings: tuple[Any, dict[int, Any]]) -> None:
    policy, handlers = settings
    asyncio.set_event_loop_policy(policy)
    for number, handler in handlers.items():
        signal.signal(number, handler)


async def _gather(jobs: list[Any]) -> list[RowsAnswer]:
    return await asyncio.gather(*jobs)


def prompt_of_rows(rows: np.ndarray, tokens: SpecialTokens) -> SpeechPrompt:
    """A prompt whose rows [S, 1 + n_vq] are given; prompt audio is read off the rows it ends with.

    The last n_vq - 1 frames of the prompt audio are not whole in the rows; zeros stand for what is missing, which only
    matters to the codec.
    """
    in_audio = rows[:, 0] == tokens.gen_slot
    n_frames = int(np.argmin(in_audio[::-1])) if not in_audio.all() else len(rows)
    tail = rows[len(rows) - n_frames :, 1:]
    codes = np.zeros((n_frames, tokens.n_vq), np.int32)
    for k in range(min(tokens.n_vq, n_frames)):
        codes[: n_frames - k, k] = tail[k:, k]
    return SpeechPrompt(rows=rows.astype(np.int32), prompt_codes=codes)
