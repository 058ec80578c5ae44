"""The kernels compile for a Hopper GPU at the sizes of the 8 B model, and hold a row in registers."""

import pytest
from hopper_compiler import spilled_bytes

from sglang_moss.backbone.cut import cut_for
from sglang_moss.backbone.kernels import product, quantized, rotation

HIDDEN, INNER, HEADS, KV_HEADS, HEAD = 4096, 12288, 32, 8, 128
ROWS_IN_8_BITS = {"out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize(("adds", "n_parts"), [(False, 1), (True, 1), (True, 4)])
def test_a_norm(dtype, adds, n_parts):
    inputs = {f"{name}_ptr": f"*{dtype}" for name in ("x", "residual", "weight")}
    if n_parts > 1:
        inputs["x_ptr"] = "*fp32"
    block = quantized._block(HIDDEN)
    constants = {"SIZE": HIDDEN, "PARTS": n_parts, "ADDS": adds, "BLOCK": block["BLOCK"]}
    arguments = {**inputs, **ROWS_IN_8_BITS, "eps": "fp32", "part_stride": "i32"}
    assert spilled_bytes(quantized._norm_kernel, arguments, constants, block["num_warps"]) == 0


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_gated_product(dtype):
    block = quantized._block(INNER)
    constants = {"SIZE": INNER, "BLOCK": block["BLOCK"]}
    arguments = {"x_ptr": f"*{dtype}", **ROWS_IN_8_BITS}
    assert spilled_bytes(quantized._gate_kernel, arguments, constants, block["num_warps"]) == 0


@pytest.mark.parametrize("size", [HEADS * HEAD, INNER])
@pytest.mark.parametrize("n_rows", [16, 64])
def test_a_product(size, n_rows):
    cut = cut_for(n_rows, HIDDEN, size, may_have_parts=True)
    assert cut is not None
    arguments = {
        "row_ptr": "*fp8e4nv",
        "row_scale_ptr": "*fp32",
        "weight_ptr": "*fp8e4nv",
        "weight_scale_ptr": "*fp32",
        "out_ptr": "*fp32",
        "n_rows": "i32",
    }
    constants = {"SIZE": size, "N": HIDDEN, "ROWS": n_rows, "COLUMNS": cut.columns, "DEPTH": cut.depth}
    constants |= {"PART": size // cut.parts, "STAGES": cut.stages}
    assert spilled_bytes(product._product_kernel, arguments, constants, cut.n_warps) == 0


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
