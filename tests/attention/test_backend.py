"""Whose attention a decoding step has: SGLang's, or ours where it is plain and of many requests."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sglang_moss.attention import backend, decode, proof

B, HQ, HK, D = 3, 8, 2, 32
LAYER = {
    "layer_id": 0,
    "head_dim": D,
    "v_head_dim": D,
    "tp_q_head_num": HQ,
    "tp_k_head_num": HK,
    "logit_cap": 0.0,
    "sliding_window_size": -1,
    "is_cross_attention": False,
    "k_scale": None,
    "v_scale": None,
    "scaling": 0.25,
}
BATCH = {
    "spec_info": None,
    "_attn_output": None,
    "out_cache_loc": torch.tensor([7, 8, 9]),
    "out_cache_loc_is_physical": True,
}


class Stock:
    """In the place of SGLang's backend, with a cache of pages of one row."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.kv_cache_dtype = torch.float32
        self.device, self.page_size = "cpu", 1
        self.num_attention_heads, self.num_kv_heads, self.head_dim = HQ, HK, D
        self.forward_metadata = SimpleNamespace(
            page_table=torch.tensor([[0, 7, 0], [1, 2, 8], [9, 0, 0]], dtype=torch.int32),
            cache_seqlens_int32=torch.tensor([2, 3, 1], dtype=torch.int32),
        )
        self.cache = torch.randn(2, 16, 1, HK, D, generator=torch.Generator().manual_seed(0))
        self.token_to_kv_pool = self

    def set_kv_buffer(self, _layer: Any, loc_info: Any, k: Tensor, v: Tensor) -> None:
        self.cache[:, loc_info.loc, 0] = torch.stack([k, v])

    def get_paged_mha_kv_cache(self, _layer: Any) -> tuple[Tensor, Tensor]:
        return self.cache[0], self.cache[1]

    def forward_decode(self, *_args: Any, **_kwargs: Any) -> str:
        return "stock"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's rule in its place, which a CPU runs."""
    monkeypatch.setattr(backend, "attend", decode.attend)
    monkeypatch.setattr(backend, "CACHE_DTYPES", (torch.float32,))
    monkeypatch.setattr(backend, "LEAST_PROGRAMS", B * HK)
    monkeypatch.setattr(proof, "attend", decode.attend)


def operands(n: int = B) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(n, HQ * D, generator=generator)
    k, v = (torch.randn(n, HK, D, generator=generator) for _ in range(2))
    return q, k, v


def step(
    layer: dict[str, Any] | None = None, batch: dict[str, Any] | None = None, n: int = B, **special: Any
) -> tuple[Stock, Any]:
    found = backend.decoding_with_ours(Stock)(None)
    layer_, batch_ = SimpleNamespace(**{**LAYER, **(layer or {})}), SimpleNamespace(**{**BATCH, **(batch or {})})
    return found, found.forward_decode(*operands(n), layer_, batch_, **special)


def test_a_step_caches_its_rows_and_attends_to_them():
    found, out = step()
    q, k, v = operands()
    assert torch.equal(found.cache[:, 7:10, 0], torch.stack([k, v]))
    seen = found.forward_metadata
    cache = found.get_paged_mha_kv_cache(None)
    expected = decode.attend(q.view(B, HQ, D), *cache, seen.page_table, seen.cache_seqlens_int32, 0.25)
    torch.testing.assert_close(out, expected.flatten(1))
    only_itself = v[2][:, None].expand(HK, HQ // HK, D).flatten()  # its first row
    torch.testing.assert_close(out[2], only_itself)


def test_rows_that_are_cached_already_are_left():
    found, _ = step(save_kv_cache=False)
    assert torch.equal(found.cache, Stock(None).cache)


@pytest.mark.parametrize("special", [{"sinks": None}, {"return_lse": False}])
def test_what_is_asked_for_by_its_default_is_plain(special):
    assert torch.is_tensor(step(**special)[1])


@pytest.mark.parametrize(
    "asked",
    [
        {"n": B - 1},
        {"layer": {"head_dim": 48, "v_head_dim": 48}},
        {"layer": {"v_head_dim": 64}},
        {"layer": {"tp_k_head_num": 1, "tp_q_head_num": 16}},
        {"layer": {"logit_cap": 30.0}},
        {"layer": {"sliding_window_size": 128}},
        {"layer": {"is_cross_attention": True}},
        {"layer": {"k_scale": torch.ones(1)}},
        {"layer": {"v_scale": torch.ones(1)}},
        {"batch": {"spec_info": object()}},
        {"batch": {"_attn_output": torch.zeros(1)}},
        {"sinks": torch.zeros(HQ)},
        {"return_lse": True},
    ],
)
def test_all_else_is_left_to_sglang(asked):
    assert step(**asked)[1] == "stock"


def test_a_cache_whose_rows_are_torn_is_left_to_sglang(monkeypatch):
    pages = torch.randn(4, HK, 4, D).permute(0, 2, 1, 3)  # heads before rows
    monkeypatch.setattr(Stock, "get_paged_mha_kv_cache", lambda *_: (pages.contiguous(), pages))
    assert step()[1] == "stock"


def test_a_cache_of_another_type_is_left_to_sglang(monkeypatch):
    monkeypatch.setattr(backend, "CACHE_DTYPES", (torch.bfloat16,))
    assert step()[1] == "stock"


def build(
    monkeypatch: pytest.MonkeyPatch,
    stock: type = Stock,
    delay_pattern: bool = True,
    deterministic: bool = False,
    capability: tuple[int, int] = (9, 0),
) -> Any:
    """What the registry builds, with `stock` in the place of SGLang's backend."""
    from sglang.srt import runtime_context, utils
    from sglang.srt.layers.attention import attention_registry

    module = ModuleType("flashattention_backend")
    module.FlashAttentionBackend = stock  # pyright: ignore[reportAttributeAccessIssue]
    module.FlashAttentionMetadata = Stock(None).forward_metadata  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "sglang.srt.layers.attention.flashattention_backend", module)
    monkeypatch.setattr(utils, "get_device_capability", lambda: capability)
    monkeypatch.setitem(attention_registry.ATTENTION_BACKENDS, "fa3", lambda _runner: "stock")
    backend.register()
    settings = SimpleNamespace(deterministic=SimpleNamespace(enable_deterministic_inference=deterministic))
    monkeypatch.setattr(runtime_context, "get_exec", lambda: settings)
    server_args = SimpleNamespace(delay_pattern=delay_pattern)
    return attention_registry.ATTENTION_BACKENDS["fa3"](SimpleNamespace(server_args=server_args, dtype=torch.float32))


@pytest.mark.parametrize("capability", [(9, 0), (8, 6)])
def test_the_registry_builds_ours_for_our_model(monkeypatch, capability):
    built = build(monkeypatch, capability=capability)
    assert isinstance(built, Stock)
    assert type(built) is not Stock


@pytest.mark.parametrize("case", [{"delay_pattern": False}, {"deterministic": True}, {"capability": (3, 1)}])
def test_the_registry_builds_sglangs_for_all_else(monkeypatch, case):
    assert build(monkeypatch, **case) == "stock"


def test_a_backend_without_what_is_relied_upon_stops_the_start(monkeypatch):
    class Other(Stock):
        def __init__(self, runner: Any) -> None:
            super().__init__(runner)
            del self.forward_metadata

    with pytest.raises(RuntimeError, match=r"this SGLang has no FlashAttentionBackend\.forward_metadata"):
        build(monkeypatch, Other)


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_kernel_that_is_wrong_on_this_gpu_stops_the_start(monkeypatch, factor):
    monkeypatch.setattr(proof, "attend", lambda *operands: decode.attend(*operands) * factor)
    with pytest.raises(RuntimeError, match=r"on this GPU .* --attention-backend triton"):
        build(monkeypatch)


def test_a_shape_that_the_kernel_does_not_know_needs_no_proof(monkeypatch):
    class Other(Stock):
        def __init__(self, runner: Any) -> None:
            super().__init__(runner)
            self.head_dim = 48

    monkeypatch.setattr(proof, "attend", lambda *operands: decode.attend(*operands) * 2)
    assert isinstance(build(monkeypatch, Other), Other)
