"""The kernels compile for a Hopper GPU at the sizes of the 8 B model, and hold a row in registers."""

import pytest
import torch
from hopper_compiler import spilled_bytes

from sglang_moss.backbone.ahead import Ahead
from sglang_moss.backbone.kernels import quantized, rotation
from sglang_moss.backbone.kernels.prefetch import prefetch_arguments

HIDDEN, INNER, HEADS, KV_HEADS, HEAD = 4096, 12288, 32, 8, 128
ROWS_IN_8_BITS = {"out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}
MORE = {"n_rows": "i32", "weight_ptr": "*fp8e4nv"}
AHEAD = Ahead(torch.empty(HIDDEN, INNER, dtype=torch.float8_e4m3fn, device="meta"), 4096)

pytestmark = pytest.mark.parametrize("ahead", [None, AHEAD], ids=["alone", "ahead"])


def prefetched(ahead: Ahead | None, n_warps: int) -> dict[str, int]:
    """Constants of the programs that bring weights ahead."""
    _, arguments = prefetch_arguments(ahead, n_warps, torch.empty(0))
    del arguments["weight_ptr"]
    return arguments


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("quantizes", [False, True])
def test_a_norm(dtype, adds, quantizes, ahead):
    inputs = {f"{name}_ptr": f"*{dtype}" for name in ("x", "residual", "weight_of_norm")}
    outputs = ROWS_IN_8_BITS if quantizes else dict.fromkeys(ROWS_IN_8_BITS, f"*{dtype}")
    block = quantized._block(HIDDEN)
    constants = {"SIZE": HIDDEN, "ADDS": adds, "QUANTIZES": quantizes, "BLOCK": block["BLOCK"]}
    constants |= prefetched(ahead, block["num_warps"])
    arguments = {**inputs, **outputs, "eps": "fp32", **MORE}
    assert spilled_bytes(quantized._norm_kernel, arguments, constants, block["num_warps"]) == 0


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("kernel", "size"), [(quantized._gate_kernel, INNER), (quantized._quantize_kernel, HIDDEN)], ids=["gate", "rows"]
)
def test_a_gated_product_and_rows(kernel, size, dtype, ahead):
    block = quantized._block(size)
    constants = {"SIZE": size, "BLOCK": block["BLOCK"], **prefetched(ahead, block["num_warps"])}
    arguments = {"x_ptr": f"*{dtype}", **ROWS_IN_8_BITS, **MORE}
    assert spilled_bytes(kernel, arguments, constants, block["num_warps"]) == 0


@pytest.mark.parametrize(("dtype", "cached"), [("bf16", "bf16"), ("fp16", "fp16"), ("bf16", "fp8e4nv")])
def test_rotation(dtype, cached, ahead):
    arguments = {
        "qkv_ptr": f"*{dtype}",
        "query_weight_ptr": f"*{dtype}",
        "key_weight_ptr": f"*{dtype}",
        "cos_sin_ptr": "*fp32",
        "position_ptr": "*i64",
        "place_ptr": "*i64",
        "key_ptr": f"*{cached}",
        "value_ptr": f"*{cached}",
        "out_ptr": f"*{dtype}",
        "eps": "fp32",
        **MORE,
    }
    tile = rotation._tile(HEADS, KV_HEADS)
    constants = {"HEADS": HEADS, "KV_HEADS": KV_HEADS, "HALF": HEAD // 2, "TILE": tile}
    constants |= prefetched(ahead, rotation._NUM_WARPS)
    assert spilled_bytes(rotation._rotate_kernel, arguments, constants, rotation._NUM_WARPS) == 0
