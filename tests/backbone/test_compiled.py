"""The kernels compile for a Hopper GPU at the sizes of the 8 B model, and hold a row in registers."""

import pytest
from hopper_compiler import spilled_bytes

from sglang_moss.backbone.kernels import quantized, rotation

HIDDEN, INNER, HEADS, KV_HEADS, HEAD = 4096, 12288, 32, 8, 128
ROWS_IN_8_BITS = {"out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("adds", [False, True])
def test_a_norm(dtype, adds):
    inputs = {f"{name}_ptr": f"*{dtype}" for name in ("x", "residual", "weight")}
    block = quantized._block(HIDDEN)
    constants = {"SIZE": HIDDEN, "ADDS": adds, "BLOCK": block["BLOCK"]}
    arguments = {**inputs, **ROWS_IN_8_BITS, "eps": "fp32"}
    assert spilled_bytes(quantized._norm_kernel, arguments, constants, block["num_warps"]) == 0


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_gated_product(dtype):
    block = quantized._block(INNER)
    constants = {"SIZE": INNER, "BLOCK": block["BLOCK"]}
    arguments = {"x_ptr": f"*{dtype}", **ROWS_IN_8_BITS}
    assert spilled_bytes(quantized._gate_kernel, arguments, constants, block["num_warps"]) == 0


@pytest.mark.parametrize(("dtype", "cached"), [("bf16", "bf16"), ("fp16", "fp16"), ("bf16", "fp8e4nv")])
def test_rotation(dtype, cached):
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
    }
    tile = rotation._tile(HEADS, KV_HEADS)
    constants = {"HEADS": HEADS, "KV_HEADS": KV_HEADS, "HALF": HEAD // 2, "TILE": tile}
    assert spilled_bytes(rotation._rotate_kernel, arguments, constants, rotation._NUM_WARPS) == 0
