"""One speech request as it travels from the HTTP process to the scheduler and the model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem, Req
from sglang.srt.multimodal.processors.base_processor import MultimodalProcessorOutput

from sglang_moss.growing import GrowingArray
from sglang_moss.options import RequestOptions
from sglang_moss.prompt import SpeechPrompt
from sglang_moss.radix import row_keys

_FIELD = "speech"


@dataclass(frozen=True)
class SpeechRequest:
    """What the scheduler process needs to know of a request; small arrays only, pickled once."""

    prompt: SpeechPrompt
    options: RequestOptions
    reference_cached: bool  # every reference of this request had been encoded before

    @property
    def last_audio_row(self) -> int:
        """`DelayState.last_audio_row` for a request whose length is fixed, 0 for one that ends by itself."""
        if not self.options.ignore_eos or self.options.max_frames is None:
            return 0
        return len(self.prompt.prompt_codes) + self.options.max_frames


@dataclass
class SpeechProgress:
    """What one request has produced, kept on SGLang's `Req` in the scheduler process.

    The scheduler's thread appends rows; the codec's thread reads them, and says when it wants to be woken.
    """

    request: SpeechRequest
    rows: GrowingArray = field(init=False)  # accepted rows [n, 1 + n_vq]: text id, codes
    wake_at: int = 1  # rows at which the codec has something to do
    on_slot_freed: Callable[[Req], None] | None = None  # set once the codec knows of this request

    def __post_init__(self) -> None:
        self.rows = GrowingArray(self.request.prompt.rows.shape[1])

    def all_rows(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """Rows [first, end) of the prompt and what has been accepted after it: [n, 1 + n_vq] int64."""
        prompt = self.request.prompt.rows
        n_prompt = len(prompt)
        end = n_prompt + len(self.rows) if end is None else end
        accepted = self.rows[max(0, first - n_prompt) : max(0, end - n_prompt)]
        return np.concatenate([prompt[first:end], np.reshape(accepted, (-1, prompt.shape[1]))], dtype=np.int64)


def envelope(request: SpeechRequest, pad_code: int) -> MultimodalProcessorOutput:
    """Pack a request for the scheduler.

    SGLang gets real text ids for its own bookkeeping and, as the radix cache's key, one integer a row that stands for
    the row's text id and codes together.
    """
    rows = request.prompt.rows
    keys: Any = row_keys(rows, pad_code)  # an array, as SGLang keeps ids itself
    item = MultimodalDataItem(modality=Modality.AUDIO, hash=0, pad_value=0, model_specific_data={_FIELD: request})
    item.offsets = []
    return MultimodalProcessorOutput(
        mm_items=[item],
        input_ids=rows[:, 0].tolist(),
        padded_input_ids=keys,
    )


def attach_progress(multimodal_inputs: Any, req: Any) -> None:
    """Give a request that has just reached the scheduler its `SpeechProgress`, also reachable from the model."""
    if multimodal_inputs is None:
        return
    for item in multimodal_inputs.mm_items:
        request = item.model_specific_data.get(_FIELD)
        if request is not None:
            req.speech = SpeechProgress(request)
            multimodal_inputs.req = req


def progress_of(req: Req) -> SpeechProgress | None:
    """The `SpeechProgress` of a request; None for one that carries no speech (a health check)."""
    return getattr(req, "speech", None)
