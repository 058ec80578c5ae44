"""What lies between a layer's products, on a GPU: the same functions as `operations`, in a launch each."""

from sglang_moss.backbone.kernels.quantized import gate_quantized, norm_quantized
from sglang_moss.backbone.kernels.rotation import rotate_and_cache

__all__ = ["gate_quantized", "norm_quantized", "rotate_and_cache"]
