"""The functions of `operations` on a GPU, each in a launch but for `added_up`, which a step asks for once."""

from torch import Tensor

from sglang_moss.backbone.kernels.product import multiply
from sglang_moss.backbone.kernels.quantized import gate_quantized, norm_quantized
from sglang_moss.backbone.kernels.rotation import rotate_and_cache
from sglang_moss.backbone.operations import Quantized, added_up

__all__ = ["added_up", "gate_quantized", "multiply", "norm_quantized", "quantize", "rotate_and_cache"]


def quantize(x: Tensor) -> Quantized:
    """By SGLang's kernel, as its products do."""
    from sglang.srt.layers.quantization.fp8_utils import sglang_per_token_quant_fp8

    return Quantized(*sglang_per_token_quant_fp8(x), x.dtype)
