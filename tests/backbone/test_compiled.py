"""The kernels compile for a Hopper GPU at the sizes of the 8 B model, and hold a row in registers."""

from typing import Any

import pytest
import torch
from hopper_compiler import compiled_for_hopper, local_bytes

from sglang_moss.backbone.ahead import Ahead
from sglang_moss.backbone.kernels import quantized, rotation
from sglang_moss.backbone.kernels.prefetch import prefetch_arguments

HIDDEN, INNER, HEADS, KV_HEADS, HEAD = 4096, 12288, 32, 8, 128
ROWS_IN_8_BITS = {"out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}
MORE = {"n_rows": "i32", "weight_ptr": "*fp8e4nv"}
AHEAD = Ahead(torch.empty(HIDDEN, INNER, dtype=torch.float8_e4m3fn, device="meta"), 4096)

pytestmark = pytest.mark.parametrize("ahead", [None, AHEAD], ids=["alone", "ahead"])


def assert_it_fits(
    kernel: Any, arguments: dict[str, str], constants: dict[str, Any], n_warps: int, ahead: Ahead | None
) -> None:
    _, given = prefetch_arguments(kernel, ahead, n_warps, torch.empty(0))
    constants = {**constants, "AHEAD": given["AHEAD"]}
    compiled = compiled_for_hopper(kernel, {**arguments, **MORE}, constants, n_warps)
    assert local_bytes(compiled) == 0
    assert ("cp.async.bulk.prefetch.L2.global" in compiled.asm["ptx"]) == (ahead is not None)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("adds", [False, True])
def test_a_norm(dtype, adds, ahead):
    inputs = {f"{name}_ptr": f"*{dtype}" for name in ("x", "residual", "weight_of_norm")}
    block = quantized._block(HIDDEN)
    constants = {"SIZE": HIDDEN, "ADDS": adds, "BLOCK": block["BLOCK"]}
    arguments = {**inputs, **ROWS_IN_8_BITS, "eps": "fp32"}
    assert_it_fits(quantized._norm_kernel, arguments, constants, block["num_warps"], ahead)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_gated_product(dtype, ahead):
    block = quantized._block(INNER)
    constants = {"SIZE": INNER, "BLOCK": block["BLOCK"]}
    assert_it_fits(
        quantized._gate_kernel, {"x_ptr": f"*{dtype}", **ROWS_IN_8_BITS}, constants, block["num_warps"], ahead
    )


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
    }
    tile = rotation._tile(HEADS, KV_HEADS)
    constants = {"HEADS": HEADS, "KV_HEADS": KV_HEADS, "HALF": HEAD // 2, "TILE": tile}
    assert_it_fits(rotation._rotate_kernel, arguments, constants, rotation._NUM_WARPS, ahead)
