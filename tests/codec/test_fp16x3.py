"""Products of float32 as three of halves: as exact as float32's, in the memory of the weight."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from codec_models import CONTEXTS, checkpoint_tensors, golden_codec, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig
from sglang_moss.codec.encoder_runner import EncoderRunner
from sglang_moss.codec.fp16x3 import Fp16x3Linear, halves_of
from sglang_moss.codec.precision import encoder_precision
from sglang_moss.codec.transformer import TransformerStage


def packed(weight: torch.Tensor) -> Fp16x3Linear:
    linear = Fp16x3Linear(nn.Parameter(weight.clone(), requires_grad=False))
    linear.pack()
    return linear


def relative_error(found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> float:
    """The largest, against the product of the absolute values: what rounding is to be measured by."""
    exact, size = x.double() @ weight.double().T, x.double().abs() @ weight.double().abs().T
    return float(((found.double() - exact).abs() / size.clamp(min=1e-300)).max())


@settings(max_examples=60, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 300), st.integers(1, 9)),
    row_scale=st.floats(-3, 4),  # powers of ten
    weight_scale=st.floats(-3, 2),
    seed=st.integers(0, 2**16),
)
def test_a_product_is_as_exact_as_in_float32(shape, row_scale, weight_scale, seed):
    n_rows, n_in, n_out = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, n_in, generator=generator) * 10**row_scale
    weight = torch.randn(n_out, n_in, generator=generator) * 10**weight_scale
    assert relative_error(packed(weight)(x), x, weight) < 1.2e-6  # a float32 sum of 300 may have half of that


def test_one_product_of_halves_is_not():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(8, 300, generator=generator), torch.randn(8, 300, generator=generator)
    assert relative_error(x.half().float() @ weight.half().float().T, x, weight) > 1e-5


def test_the_weight_is_packed_once_where_it_lies():
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    linear = Fp16x3Linear(nn.Parameter(weight.clone(), requires_grad=False))
    address, halves = linear.weight.data_ptr(), linear.halves  # as a captured graph has them
    linear.pack()
    linear.pack()
    assert linear.weight.data_ptr() == address
    high, low = halves_of(weight)
    assert torch.equal(halves, torch.cat((high, low), dim=1))
    assert linear(torch.ones(2, 4, 5)).shape == (2, 4, 3)


@pytest.mark.parametrize("context", CONTEXTS)
def test_weights_that_come_again_are_packed_again(context: str):
    codec = copy.deepcopy(golden_codec(context, "fp16x3"))
    waveform = torch.randn(48_000, generator=torch.Generator().manual_seed(2)) * 0.1
    [before] = codec.encode([waveform])
    codec.load_weights(checkpoint_tensors().items())
    [after] = codec.encode([waveform])
    assert torch.equal(before, after)


def test_another_precision_is_refused_and_every_layer_takes_the_one_that_is_asked_for():
    codec = Codec(CodecConfig.from_dict(tiny_config()))
    with pytest.raises(ValueError, match="ieee or fp16x3"):
        codec.to_encoder_precision("fp16")
    assert not any(isinstance(module, Fp16x3Linear) for module in codec.modules())
    codec.to_encoder_precision("fp16x3")
    assert any(isinstance(module, Fp16x3Linear) for module in codec.encoder.modules())
    assert not any(isinstance(module, Fp16x3Linear) for module in codec.decoder.modules())


def test_a_weight_that_halves_cannot_hold_is_refused_by_name():
    codec = Codec(CodecConfig.from_dict(tiny_config()))
    codec.to_encoder_precision("fp16x3")
    for parameter in codec.parameters():
        parameter.fill_(0.1)
    name, weight = next((n, p) for n, p in codec.named_parameters() if n.startswith("encoder") and "up.weight" in n)
    weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=re.escape(f"codec weight {name} is too large")):
        codec.post_load()


@pytest.mark.parametrize(
    ("name", "capability", "expected"), [("auto", 9, "fp16x3"), ("auto", 8, "ieee"), ("ieee", 9, "ieee")]
)
def test_tensor_cores_encode_by_default_where_codes_were_found_equal(monkeypatch, name, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (capability, 0))
    assert encoder_precision(name, torch.device("cuda", 0)) == expected
    assert encoder_precision("auto", torch.device("cpu")) == "ieee"


def test_a_row_that_halves_cannot_hold_fails_its_clip_and_no_later_one():
    codec = copy.deepcopy(golden_codec("ctx10", "fp16x3"))
    runner = EncoderRunner(codec, 3, n_slots=2)
    samples = 0.1 * np.random.default_rng(5).normal(size=8 * codec.config.frame_samples).astype(np.float32)
    [expected] = runner.encode([samples], [0])
    with pytest.raises(OverflowError, match="--codec-encoder-precision ieee"), too_large(codec):
        runner.encode([samples, samples], [0, 1])
    runner.reset(0)
    [codes] = runner.encode([samples], [0])
    assert (codes == expected).all()


@contextmanager
def too_large(codec: Codec) -> Iterator[None]:
    """What comes out of the first linear's norm is more than float16 has."""
    stage = next(stage for stage in codec.encoder if isinstance(stage, TransformerStage))
    norm = stage.transformer_layers[0].attention_norm
    weight = norm.weight.clone()
    norm.weight.fill_(1e6)
    try:
        yield
    finally:
        norm.weight.copy_(weight)
