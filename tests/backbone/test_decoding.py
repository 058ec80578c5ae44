"""A decoding step through layers of which some products take rows in 8 bits, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sglang_moss.backbone import cut as cut_module
from sglang_moss.backbone import decoding, operations, proof
from sglang_moss.backbone.cut import Cut, cut_for
from sglang_moss.backbone.decoding import DecodingLayers, takes_quantized
from sglang_moss.backbone.layers import why_not_fused
from sglang_moss.backbone.operations import FP8, Quantized

B, D, HQ, HK, SIZE, INNER, N_ROWS = 3, 64, 4, 2, 16, 96, 8
EPS = 1e-6
PLACES = torch.tensor([5, 2, 7])


class Norm:
    """In the place of SGLang's, which adds to a residual in place."""

    def __init__(self, size: int, seed: int) -> None:
        self.weight, self.variance_epsilon = 1 + 0.1 * made(size, seed=seed), EPS

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Any:
        total = x if residual is None else x + residual
        normed = functional.rms_norm(total, total.shape[-1:], self.weight, EPS)
        return normed if residual is None else (normed, total)


class Fp8LinearMethod:
    """By SGLang's name, with what of it is looked at."""

    cutlass_fp8_supported, block_quant, use_marlin = True, False, False


class Product:
    """By weights in 8 bits or in full; what it was given."""

    def __init__(self, n_out: int, n_in: int, seed: int, in_8_bits: bool) -> None:
        weight = made(n_out, n_in, seed=seed) / n_in**0.5
        self.bias = self.input_scale = None
        self.quant_method: Any = Fp8LinearMethod() if in_8_bits else object()
        if in_8_bits:
            rows, scales, _ = operations.quantize(weight)
            self.weight, self.weight_scale = rows.t(), scales
        else:
            self.weight = weight
        self.given: Any = None

    def __call__(self, x: Any) -> tuple[Tensor, None]:
        self.given = x
        if not isinstance(self.quant_method, Fp8LinearMethod):
            return functional.linear(x, self.weight), None
        x = x if isinstance(x, Quantized) else operations.quantize(x)
        weight = self.weight.float().t() * self.weight_scale
        return functional.linear(x.rows.float() * x.scales, weight).to(x.dtype), None


class Attention:
    """Of every head over all of the cache, which is not what a model does, but depends on all that was cached."""

    k_scale = v_scale = None

    def __init__(self, number: int, pool: "Pool") -> None:
        self.layer_id, self.pool = number, pool

    def __call__(self, q: Tensor, k: None, v: None, _batch: Any, save_kv_cache: bool) -> Tensor:
        assert (k, v, save_kv_cache) == (None, None, False)
        keys, values = (c.repeat_interleave(HQ // HK, dim=1) for c in self.pool.get_kv_buffer(self.layer_id))
        weights = torch.einsum("bhd,nhd->bhn", q.view(B, HQ, SIZE), keys).softmax(-1)
        return torch.einsum("bhn,nhd->bhd", weights, values).flatten(1)


class Pool:
    def __init__(self) -> None:
        self.caches = made(2, 2, N_ROWS, HK, SIZE, seed=90)

    def get_kv_buffer(self, number: int) -> tuple[Tensor, Tensor]:
        return self.caches[number, 0], self.caches[number, 1]


def made(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


RotaryEmbedding = type("RotaryEmbedding", (), {"is_neox_style": True, "rotary_dim": SIZE})


def backbone(pool: Pool, in_8_bits: bool) -> Any:
    layers = []
    for number in range(2):
        seed = 10 * (number + 1)
        rotation: Any = RotaryEmbedding()
        rotation.cos_sin_cache = made(32, SIZE, seed=seed)
        attention = SimpleNamespace(
            attn=Attention(number, pool),
            head_dim=SIZE,
            num_heads=HQ,
            num_kv_heads=HK,
            q_norm=Norm(SIZE, seed + 1),
            k_norm=Norm(SIZE, seed + 2),
            rotary_emb=rotation,
            qkv_proj=Product((HQ + 2 * HK) * SIZE, D, seed + 3, in_8_bits),
            o_proj=Product(D, HQ * SIZE, seed + 4, in_8_bits),
        )
        mlp = SimpleNamespace(
            act_fn=lambda x: functional.silu(x[:, :INNER]) * x[:, INNER:],
            gate_up_proj=Product(2 * INNER, D, seed + 5, in_8_bits),
            down_proj=Product(D, INNER, seed + 6, in_8_bits),
        )
        norms = {"input_layernorm": Norm(D, seed + 7), "post_attention_layernorm": Norm(D, seed + 8)}
        layers.append(SimpleNamespace(self_attn=attention, mlp=mlp, **norms))
    return SimpleNamespace(layers=layers, norm=Norm(D, 5))


def step(model: Any, pool: Any, monkeypatch: pytest.MonkeyPatch, takes_cached_rows: bool = True) -> Tensor:
    from sglang.srt.model_executor import forward_context

    found = SimpleNamespace(takes_cached_rows=takes_cached_rows, token_to_kv_pool=pool)
    monkeypatch.setattr(forward_context, "get_attn_backend", lambda: found)
    batch = SimpleNamespace(out_cache_loc=PLACES)
    return DecodingLayers(model, operations)(made(B, D, seed=1), torch.tensor([3, 31, 0]), batch)


def test_products_in_8_bits_take_rows_that_are_in_8_bits_and_say_nearly_what_others_say(monkeypatch):
    pools = Pool(), Pool()
    model = backbone(pools[0], in_8_bits=True)
    found = step(model, pools[0], monkeypatch)
    expected = step(backbone(pools[1], in_8_bits=False), pools[1], monkeypatch)
    assert (found - expected).std() < 0.1 * expected.std()
    for layer in model.layers:
        products = (layer.self_attn.qkv_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj)
        assert all(isinstance(product.given, Quantized) for product in products)
        assert torch.is_tensor(layer.self_attn.o_proj.given)


@pytest.mark.parametrize("n_parts", [1, 2, 4])
def test_products_in_parts_change_nothing_but_roundings(monkeypatch, n_parts):
    pools = Pool(), Pool()
    whole = step(backbone(pools[0], in_8_bits=True), pools[0], monkeypatch)
    model = backbone(pools[1], in_8_bits=True)
    asked: list[tuple[int, ...]] = []

    def cut(*sizes: int) -> Cut:
        asked.append(sizes)
        return Cut(columns=8, depth=8, parts=n_parts if sizes[-1] else 1)

    monkeypatch.setattr(decoding, "cut_for", cut)
    torch.testing.assert_close(step(model, pools[1], monkeypatch), whole, rtol=1e-4, atol=1e-4)
    qkv, gate_up = (HQ + 2 * HK) * SIZE, 2 * INNER
    assert asked == 2 * [(B, qkv, D, False), (B, D, HQ * SIZE, True), (B, gate_up, D, False), (B, D, INNER, True)]
    for layer in model.layers:
        products = layer.self_attn.qkv_proj, layer.self_attn.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj
        assert [product.given for product in products] == 4 * [None]


def test_no_product_in_full_is_cut(monkeypatch):
    pool = Pool()
    monkeypatch.setattr(decoding, "cut_for", lambda *_sizes: pytest.fail("it was to be cut"))
    step(backbone(pool, in_8_bits=False), pool, monkeypatch)


@pytest.mark.parametrize(
    ("sizes", "is_ours"), [((64, 4096, 12_288), True), ((65, 4096, 4096), False), ((1, 4000, 4096), False)]
)
def test_products_of_few_rows_are_cut_where_they_can_be(sizes, is_ours):
    cut = cut_for(*sizes, may_have_parts=True)
    assert (cut is not None) == is_ours
    assert cut is None or cut.fits(*sizes[1:])


@pytest.mark.parametrize(("n_parts", "is_ours"), [(1, True), (2, False)])
def test_what_no_norm_follows_has_no_parts(monkeypatch, n_parts, is_ours):
    monkeypatch.setattr(cut_module, "_WHOLE_CUT", Cut(128, 128, n_parts))
    assert (cut_for(5, 4096, 2048, may_have_parts=False) is not None) == is_ours


@pytest.mark.parametrize("lies", [True, False])
def test_weights_that_lie_otherwise_are_sglangs_to_multiply_by(monkeypatch, lies):
    pool = Pool()
    model = backbone(pool, in_8_bits=True)
    for layer in model.layers:
        product = layer.mlp.down_proj
        product.weight = product.weight if lies else product.weight.contiguous()
    monkeypatch.setattr(decoding, "cut_for", lambda *_sizes: Cut(columns=8, depth=8, parts=1))
    step(model, pool, monkeypatch)
    assert all((layer.mlp.down_proj.given is None) == lies for layer in model.layers)


def test_a_step_caches_its_rows_and_no_others(monkeypatch):
    pool, before = Pool(), Pool().caches
    step(backbone(pool, in_8_bits=False), pool, monkeypatch)
    changed = (pool.caches != before).any(-1).any(-1)
    assert changed[:, :, PLACES].all()
    assert changed.sum() == 2 * 2 * len(PLACES)


@pytest.mark.parametrize(
    "changed",
    [
        {"quant_method": object()},
        {"input_scale": torch.ones(1)},
        {"weight": torch.ones(4, 4)},
        {"weight_scale": torch.ones(1)},
        {"quant_method.block_quant": True},
        {"quant_method.use_marlin": True},
        {"quant_method.cutlass_fp8_supported": False},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_products_quantize_their_rows_themselves(changed):
    product = Product(8, 16, 0, in_8_bits=True)
    assert takes_quantized(product)
    for name, value in changed.items():
        owner, _, field = name.rpartition(".")
        setattr(getattr(product, owner) if owner else product, field, value)
    assert not takes_quantized(product)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("self_attn.rotary_emb.is_neox_style", False, "the rotation"),
        ("self_attn.rotary_emb.rotary_dim", SIZE // 2, "the rotation"),
        ("self_attn.head_dim", 24, "the rotation"),
        ("self_attn.k_norm.variance_epsilon", 1e-5, "the norms of heads"),
        ("mlp.down_proj.bias", torch.ones(D), "a bias"),
        ("self_attn.attn.k_scale", torch.ones(1), "the cache's scales"),
    ],
)
def test_layers_that_have_something_else_are_refused(path, value, said):
    model = backbone(Pool(), in_8_bits=False)
    *owners, field = path.split(".")
    owner = model.layers[1]
    for name in owners:
        owner = getattr(owner, name)
    setattr(owner, field, value)
    with pytest.raises(ValueError, match=f"--decoding-layers fused does not know {said}; take stock"):
        DecodingLayers(model, operations)


def test_layers_of_another_sglang_are_refused():
    model = backbone(Pool(), in_8_bits=False)
    del model.layers[0].mlp.act_fn
    with pytest.raises(RuntimeError, match=r"this SGLang has no Qwen3DecoderLayer\.mlp\.act_fn"):
        DecodingLayers(model, operations)


def test_a_backend_that_may_cache_again_and_a_torn_cache_are_refused(monkeypatch):
    pool = Pool()
    model = backbone(pool, in_8_bits=False)
    torn = SimpleNamespace(get_kv_buffer=lambda number: [c.transpose(0, 1) for c in pool.get_kv_buffer(number)])
    with pytest.raises(RuntimeError, match="does not know this KV cache"):
        step(model, torn, monkeypatch)
    with pytest.raises(RuntimeError, match="does not know SimpleNamespace"):
        step(model, pool, monkeypatch, takes_cached_rows=False)


ARGS = {
    "attention_backend": None,
    "kv_cache_dtype": "auto",
    "dtype": "bfloat16",
    "tp_size": 1,
    "enable_deterministic_inference": False,
}


@pytest.mark.parametrize(
    ("given", "on_gpu", "on_hopper", "said"),
    [
        ({}, True, True, None),
        ({}, False, False, None),
        ({"kv_cache_dtype": "fp8_e4m3", "attention_backend": "fa3"}, True, True, None),
        ({}, True, False, "need a Hopper GPU"),
        ({"attention_backend": "triton"}, True, True, "need --attention-backend fa3"),
        ({"kv_cache_dtype": "fp8_e5m2"}, True, True, "leaves for a cache in fp8_e5m2"),
        ({"dtype": "float32"}, True, True, "a dtype of 16 bits"),
        ({"tp_size": 2}, True, True, "ranks of --tp-size"),
        ({"enable_deterministic_inference": True}, True, True, "--enable-deterministic-inference"),
    ],
)
def test_which_arguments_go_with_them(given, on_gpu, on_hopper, said):
    found = why_not_fused(SimpleNamespace(**{**ARGS, **given}), on_gpu, on_hopper)
    assert found == said if said is None else said in found


SIZES = (64, 96, 4, 2, 16)


@pytest.fixture
def plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules in the kernels' place, which a CPU runs."""
    plain = SimpleNamespace(**{name: getattr(operations, name) for name in RULES})
    monkeypatch.setattr(proof, "_RULES", (plain, operations))
    monkeypatch.setattr(proof, "cut_for", lambda *_sizes: Cut(columns=32, depth=32, parts=2))


RULES = ("norm_quantized", "gate_quantized", "rotate_and_cache", "multiply")


@pytest.mark.usefixtures("plain_kernels")
def test_kernels_that_are_right_are_taken():
    proof.prove(*SIZES, torch.bfloat16, torch.device("cpu"))


@pytest.mark.usefixtures("plain_kernels")
def test_they_are_held_to_it_also_where_tensors_lie_elsewhere_by_default():
    """SGLang builds a model where they lie on the GPU."""
    with torch.device("meta"):
        proof.prove(*SIZES, torch.bfloat16, torch.device("cpu"))


def rolled(right: Any, x: Tensor | Quantized, *others: Any) -> Any:
    """Of other rows."""
    if isinstance(x, Quantized):
        return right(x._replace(rows=x.rows.view(torch.uint8).roll(1, dims=0).view(FP8)), *others)
    return right(x.roll(1, dims=0), *others)


def forgets_a_part(right: Any, *operands: Any) -> Tensor:
    found = right(*operands)
    found[-1] = 0
    return found


def takes_one_part(right: Any, x: Tensor, *others: Any) -> Quantized:
    return right(x[0] if x.dim() == 3 else x, *others)


def scaled(factor: float) -> Any:
    def changed(right: Any, *operands: Any) -> Quantized:
        found = right(*operands)
        return found._replace(scales=factor * found.scales)

    return changed


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize(
    ("wrong", "how"),
    [
        *((rule, rolled) for rule in RULES),
        ("multiply", forgets_a_part),
        ("norm_quantized", takes_one_part),
        *((rule, scaled(factor)) for rule in RULES[:2] for factor in (0.0, 0.5, 1.05, 2.0)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_kernels_that_are_wrong_stop_the_start(monkeypatch, wrong, how):
    right = getattr(operations, wrong)

    def changed(*operands: Any) -> Any:
        return how(right, *operands)

    monkeypatch.setattr(proof._RULES[0], wrong, changed)
    with pytest.raises(RuntimeError, match="take --decoding-layers stock, and report it"):
        proof.prove(*SIZES, torch.bfloat16, torch.device("cpu"))


def test_sglangs_products_multiply_rows_that_are_quantized_as_they_are(monkeypatch):
    """Its own code up to the kernel, which a CPU has not."""
    from sglang.srt.layers.quantization import fp8, fp8_utils

    given: list[Any] = []

    def multiply(*operands: Any, **others: Any) -> Tensor:
        given.extend([*operands, others])
        return torch.zeros(B, 32, dtype=torch.bfloat16)

    monkeypatch.setattr(fp8_utils, "fp8_scaled_mm", multiply, raising=False)
    monkeypatch.setattr(fp8_utils, "get_w8a8_channelwise_fp8_config", lambda **_: None)
    rows = operations.quantize(made(B, D, seed=1).bfloat16())
    weight, scales, _ = operations.quantize(made(32, D, seed=2))
    product = SimpleNamespace(weight=weight.t(), weight_scale=scales.t(), input_scale=None)
    method: Any = object.__new__(fp8.Fp8LinearMethod)
    for name in ("use_marlin", "use_mxfp8", "block_fp8_as_mxfp8", "block_quant", "use_per_token_if_dynamic"):
        setattr(method, name, False)
    method.cutlass_fp8_supported = True
    out = method.apply(product, rows)
    assert (out.shape, out.dtype) == ((B, 32), torch.bfloat16)
    taken, by, row_scales, weight_scales, others = given
    assert torch.equal(taken.view(torch.int8), rows.rows.view(torch.int8))
    assert torch.equal(row_scales, rows.scales)
    assert by is product.weight
    assert weight_scales is product.weight_scale
    assert others["out_dtype"] is torch.bfloat16


def test_rows_in_8_bits_are_what_sglang_makes_of_them():
    """A 448th of the largest is the scale; a row of zeros has none, and stays one."""
    x = torch.tensor([[896.0, -2.0, 0.0, 1.0], [0.0] * 4])
    found = operations.quantize(x)
    assert found.scales.flatten().tolist() == [2.0, 0.0]
    assert found.rows.float().tolist() == [[448.0, -1.0, 0.0, 0.5], [0.0] * 4]
    assert (found.rows.dtype, found.dtype) == (FP8, torch.float32)
