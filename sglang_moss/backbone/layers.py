"""Whose kernels a decoding step's layers take besides attention: SGLang's, or ours between their products."""

from typing import Any

from sglang_moss.attention.flash_attention_3 import why_not_taken

STOCK, FUSED = "stock", "fused"


def why_not_fused(server_args: Any, on_gpu: bool, on_hopper: bool) -> str | None:
    """Why fused layers do not go with these arguments; None: they do."""
    if on_gpu and (need := why_not_taken(server_args, on_hopper)):
        return f"fused layers need {need}"
    if server_args.tp_size > 1:
        return "fused layers do not add up what ranks of --tp-size compute"
    if server_args.enable_deterministic_inference:
        return "which kernels run must not differ between prefill and decoding with --enable-deterministic-inference"
    return None
