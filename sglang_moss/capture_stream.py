"""The stream on which SGLang captures the language model's graphs, above the codec's decoder.

Kernels of a captured graph keep the priority of the stream that they were captured on. With equal priorities those of a
step of the language model would queue behind the decoder's. The encoder's stream is `codec.encoder_runner`'s matter.
"""

import torch
from sglang.srt.runtime_context import set_stream

from sglang_moss.codec.graphs import ABOVE_THE_DECODER

_NAME = "cuda_graph_capture"  # by which SGLang's graph runners ask for it


def set_capture_stream() -> None:
    """Give SGLang a stream of higher priority to capture on; before any graph is captured."""
    if torch.cuda.is_available():
        set_stream(_NAME, torch.cuda.Stream(priority=ABOVE_THE_DECODER))


def check_capture_stream() -> None:
    """
    Raises:
        RuntimeError: SGLang captures on another stream than ours, so that the codec would delay the language model.
    """
    if not torch.cuda.is_available():
        return
    from sglang.srt.model_executor.runner_utils.pool import get_or_create_global_graph_capture_stream

    priority = get_or_create_global_graph_capture_stream().priority
    if priority != ABOVE_THE_DECODER:
        raise RuntimeError(
            f"sglang_moss: SGLang captures graphs on a stream of priority {priority}, expected {ABOVE_THE_DECODER}"
        )
