"""SGLang's multimodal item, which carries a speech request from the HTTP process to the scheduler and the model."""

from typing import Any

from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem, Req
from sglang.srt.multimodal.processors.base_processor import MultimodalProcessorOutput

from sglang_moss.request.speech import SpeechProgress, SpeechRequest, row_keys

_FIELD = "speech"


def envelope(request: SpeechRequest, pad_code: int) -> MultimodalProcessorOutput:
    """Pack a request for the scheduler.

    SGLang gets real text ids for its own bookkeeping and, as the prefix cache's key, one integer a row that stands for
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
