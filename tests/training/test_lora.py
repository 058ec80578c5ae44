"""Adapters: peft's layer and ours give the same, what is frozen stays so, and what is kept can be read by peft."""

import json

import pytest
import torch
from golden_data import GOLDEN
from safetensors.torch import load_file

from sglang_moss.training.config import LoraConfig
from sglang_moss.training.golden.model_check import golden_model
from sglang_moss.training.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapters, add_lora, base_name, save_adapters
from sglang_moss.training.lora_linear import lora_linear

pytestmark = pytest.mark.wide


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_layer_equals_its_parts_and_so_do_its_gradients(dtype, has_bias):
    generator = torch.Generator().manual_seed(0)
    x, weight, a, b = (
        torch.randn(shape, generator=generator, dtype=dtype) for shape in ((7, 12), (10, 12), (3, 12), (10, 3))
    )
    bias = torch.randn(10, generator=generator, dtype=dtype) if has_bias else None
    upstream = torch.randn(7, 10, generator=generator, dtype=dtype)
    found = []
    for whole in (True, False):
        inputs = [tensor.clone().requires_grad_() for tensor in (x, a, b)]
        if whole:
            out, _ = lora_linear(inputs[0], weight, bias, inputs[1], inputs[2], 0.7)
        else:
            out = torch.nn.functional.linear(inputs[0], weight, bias) + 0.7 * (inputs[0] @ inputs[1].T) @ inputs[2].T
        out.backward(upstream)
        found.append([out.detach(), *(tensor.grad for tensor in inputs)])
    torch.testing.assert_close(*found)


def test_the_operation_keeps_to_what_torch_asks_of_one():
    x, weight, a, b = (torch.randn(shape) for shape in ((4, 6), (5, 6), (2, 6), (5, 2)))
    a.requires_grad_()
    b.requires_grad_()
    torch.library.opcheck(lora_linear, (x, weight, None, a, b, 0.5))


def adapted(**settings) -> torch.nn.Module:
    model = golden_model(GOLDEN / "ttsd", "sdpa")
    add_lora(model, LoraConfig(rank=3, **settings), seed=1)
    return model


def test_a_layer_gives_what_pefts_own_forward_gives():
    layer = adapted().language_model.layers[1].mlp.down_proj
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_(generator=torch.Generator().manual_seed(2))
        x = torch.randn(1, 5, 160)
        torch.testing.assert_close(layer(x), super(type(layer), layer).forward(x))
        assert not torch.allclose(layer(x), layer.base_layer(x))


def test_only_adapters_are_trained():
    names = {name for name, p in adapted().named_parameters() if p.requires_grad}
    assert len(names) == 3 * 7 * 2
    assert all(base_name(name) is None for name in names)
    few = {name for name, p in adapted(targets="mlp").named_parameters() if p.requires_grad}
    assert len(few) == 3 * 3 * 2
    one = {name for name, p in adapted(targets=r".*layers\.2\..*q_proj").named_parameters() if p.requires_grad}
    assert len(one) == 2
    heads = {n for n, p in adapted(audio_heads=True).named_parameters() if p.requires_grad} - names
    assert heads == {f"emb_ext.{k}.weight" for k in range(16)} | {f"lm_heads.{k + 1}.weight" for k in range(16)}


def test_a_seed_decides_where_adapters_begin():
    first, same = ({n: p for n, p in adapted().named_parameters() if ".lora_" in n} for _ in range(2))
    assert all(torch.equal(p, same[name]) for name, p in first.items())
    assert all(bool(p.any()) == (".lora_A." in name) for name, p in first.items())


def test_kept_adapters_are_in_pefts_format(tmp_path):
    from peft import LoraConfig as PeftConfig

    tensors = {name: p.detach() for name, p in adapted(audio_heads=True).named_parameters() if p.requires_grad}
    save_adapters(tmp_path, tensors, LoraConfig(rank=3, audio_heads=True), "BASE")
    read = PeftConfig.from_pretrained(str(tmp_path))
    assert (read.r, read.lora_alpha, read.base_model_name_or_path) == (3, 64, "BASE")
    keys = load_file(tmp_path / ADAPTER_WEIGHTS)
    assert "base_model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight" in keys
    changes = Adapters(tmp_path).changes()
    assert len(changes.names()) == 21 + 32
    base = torch.zeros(64, 64)
    name = "language_model.layers.0.self_attn.q_proj"
    a, b = (tensors[f"{name}.lora_{half}.default.weight"] for half in "AB")
    torch.testing.assert_close(changes.apply(f"{name}.weight", base), 64 / 3 * b @ a)
    described = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(described | {"use_dora": True}))
    with pytest.raises(ValueError, match="only plain LoRA"):
        Adapters(tmp_path)
