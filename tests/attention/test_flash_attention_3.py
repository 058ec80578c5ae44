"""What is said of the backend that SGLang takes is what SGLang does."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_moss.attention.flash_attention_3 import FA3, why_not_taken
from sglang_moss.server_args import MossServerArgs


def taken_by_sglang(args: MossServerArgs, monkeypatch: pytest.MonkeyPatch, on_hopper: bool) -> str:
    """By SGLang's own rules, as if there were a GPU."""
    from sglang.srt.arg_groups import model_override_base, overrides

    gpu = SimpleNamespace(is_hopper_with_cuda_12_3=on_hopper, is_sm100=False, is_hip=False, has_flashinfer=True)
    ours = SimpleNamespace(architectures=["MossTTSDdelayWithCodec"])
    model: Any = SimpleNamespace(hf_config=ours, has_attention_sinks=False)
    monkeypatch.setattr(model_override_base, "current_platform", SimpleNamespace(is_out_of_tree=lambda: False))
    monkeypatch.setattr(model_override_base, "get_platform", lambda: gpu)
    found = model_override_base.get_default_attn_backend(args, use_mla_backend=False, model_config=model)
    view = SimpleNamespace(attention_backend=found, kv_cache_dtype=args.kv_cache_dtype)
    return overrides._attention_backend_fa3_fp8_fallback(view).get("attention_backend", found)


@pytest.mark.parametrize("on_hopper", [True, False])
@pytest.mark.parametrize(
    "given", [{}, {"kv_cache_dtype": "fp8_e4m3"}, {"kv_cache_dtype": "fp8_e5m2"}, {"page_size": 16}]
)
def test_it_is_taken_where_nothing_is_said_to_be_in_the_way(
    given: dict[str, Any], on_hopper: bool, fused_path: Path, monkeypatch: pytest.MonkeyPatch
):
    args = MossServerArgs(model_path=str(fused_path), dtype="bfloat16", **given)
    is_taken = taken_by_sglang(args, monkeypatch, on_hopper) == FA3
    assert is_taken == (why_not_taken(args, on_hopper) is None)
