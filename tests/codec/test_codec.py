"""The codec in one shot against the reference, and what it refuses."""

import copy
import re

import numpy as np
import pytest
import torch
from codec_models import CONTEXTS, checkpoint_tensors, config_dict, golden_codec, random_codes, tiny_codec, tiny_config
from golden_data import golden_arrays, golden_json
from torch import Tensor

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig, TransformerShape
from sglang_moss.codec.patching import Patch, Unpatch
from sglang_moss.codec.weights import fold_weight_norm

ENCODE = golden_arrays("codec/encode")
ENCODE_CASES = golden_json("codec/encode")["clips_and_cases"]
DECODE = golden_arrays("codec/decode")
ONE_SHOT_CODES = [k for k in ENCODE if re.fullmatch(r"(?!batch)\w+\.\w+\.(one_shot|nq\d+)\.codes", k)]
ONE_SHOT_WAVES = [k for k in DECODE if k.endswith(".wav") and "chunk" not in k]
WAVEFORM_TOLERANCE = 1e-5  # float32 noise of the reference is 3e-7 at rms 0.15


def pcm(clip: str) -> Tensor:
    return torch.from_numpy(ENCODE[f"{clip}.pcm"].astype(np.float32) / 32768)


def golden_codes(case: str) -> Tensor:
    return torch.from_numpy(DECODE[f"{case}.codes"].T.astype(np.int64))


@pytest.mark.parametrize("precision", ["ieee", "fp16x3"])
@pytest.mark.parametrize("case", ONE_SHOT_CODES)
def test_encode_gives_the_references_codes(case, precision):
    clip, context, _, _ = case.split(".")
    n_codebooks, _ = ENCODE[case].shape
    n_valid = ENCODE_CASES[case.removesuffix(".codes")]["valid_frames"]
    codec = golden_codec(context, precision)
    [codes] = codec.encode([pcm(clip)])
    assert codes.dtype == torch.int64
    assert codes.shape == (n_valid, codec.config.n_codebooks)
    assert codes[:, :n_codebooks].tolist() == ENCODE[case][:, :n_valid].T.tolist()


def test_a_batch_of_different_lengths_gives_the_references_codes():
    clips = ENCODE_CASES["batch.ctx10"]["clips"]
    codes = golden_codec("ctx10").encode([pcm(clip) for clip in clips])
    for i, n_frames in enumerate(ENCODE["batch.ctx10.lengths"]):
        assert codes[i].tolist() == ENCODE["batch.ctx10.codes"][:, i, :n_frames].T.tolist()


@pytest.mark.parametrize("context", CONTEXTS)
def test_encoder_output_is_the_references(context):
    codec = golden_codec(context)
    n_frames = len(pcm("ragged")) // codec.config.frame_samples
    hidden = codec.encoder_hidden(pcm("ragged")[None, : n_frames * codec.config.frame_samples])
    golden = torch.from_numpy(ENCODE[f"ragged.{context}.encoder_hidden"].T[:n_frames].copy())
    # Each side's float32 noise is 5e-6 against float64, at a standard deviation of 2.
    torch.testing.assert_close(hidden[0], golden, atol=1.5e-5, rtol=0)


@pytest.mark.parametrize("case", ONE_SHOT_WAVES)
def test_decode_gives_the_references_waveform(case):
    name, context, variant, *_ = case.split(".")
    codes = golden_codes(name)
    if variant.startswith("nq"):
        codes = codes[:, : int(variant.removeprefix("nq"))]
    waveform = golden_codec(context).decode(codes)
    golden = torch.from_numpy(DECODE[case])
    assert waveform.dtype == torch.float32
    assert len(waveform) == len(codes) * golden_codec(context).config.frame_samples
    part = waveform[-len(golden) :] if "after" in case else waveform[: len(golden)]
    torch.testing.assert_close(part, golden, atol=WAVEFORM_TOLERANCE, rtol=0)


def test_every_kind_of_golden_case_is_compared():
    assert {case.split(".")[1] for case in ONE_SHOT_CODES} == set(CONTEXTS)
    assert {case.split(".")[1] for case in ONE_SHOT_WAVES} == set(CONTEXTS)
    assert any(".nq1." in case for case in ONE_SHOT_WAVES)
    assert any(".after" in case for case in ONE_SHOT_WAVES)


def test_below_one_frame_there_are_no_codes_and_no_samples():
    codec = tiny_codec()
    short, whole = torch.ones(11), torch.linspace(-1, 1, 31)
    assert [c.shape for c in codec.encode([short, torch.zeros(0)])] == [(0, 5), (0, 5)]
    assert [c.shape for c in codec.encode([short, whole])] == [(0, 5), (2, 5)]
    assert codec.encode([]) == []
    assert codec.decode(torch.zeros(0, 5, dtype=torch.int64)).shape == (0,)


def test_a_last_partial_frame_changes_no_code():
    codec, waveform = tiny_codec(), torch.randn(60, generator=torch.Generator().manual_seed(1))
    whole, longer = codec.encode([waveform, torch.cat((waveform, torch.full((11,), 5.0)))])
    assert torch.equal(whole, longer)


def test_memory_layout_and_integer_width_do_not_matter():
    codec = tiny_codec()
    codes = random_codes(codec, 9, 5)
    expected = codec.decode(codes)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(codec.decode(codes.to(dtype)), expected)
    assert torch.equal(codec.decode(codes.T.contiguous().T), expected)
    waveform = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))[:, 0]
    assert torch.equal(codec.encode([waveform])[0], codec.encode([waveform.contiguous()])[0])
    assert torch.equal(codec.encode([waveform.double()])[0], codec.encode([waveform])[0])


def test_each_code_is_the_nearest_direction_to_the_residual():
    codec = tiny_codec()
    waveform = torch.randn(600, generator=torch.Generator().manual_seed(2))
    codes = codec.encode([waveform])[0]
    residual = codec.encoder_hidden(waveform[None])[0]
    for k in range(codec.config.n_codebooks):
        vectors = codec.get_parameter(f"quantizer.quantizers.{k}.codebook.weight")
        gap = torch.nn.functional.normalize(residual)[:, None] - torch.nn.functional.normalize(vectors)
        assert codes[:, k].tolist() == gap.square().sum(-1).argmin(-1).tolist()
        residual = residual - vectors[codes[:, k]]
    assert (codes == 0).any()  # the zero vector, at distance 1 of every direction


def test_unpatch_undoes_patch():
    x = torch.arange(2 * 12 * 5.0).reshape(2, 12, 5)
    assert torch.equal(Unpatch(3)(Patch(3)(x)), x)
    assert Patch(2)(torch.tensor([[[0, 10], [1, 11]]])).tolist() == [[[0, 1, 10, 11]]]


def test_codes_and_waveforms_of_the_wrong_kind_are_refused():
    codec = tiny_codec()
    good = random_codes(codec, 4, 5)
    with pytest.raises(ValueError, match=r"span 0 to 17, expected 0 to 16.*pad codes"):
        codec.decode(torch.tensor([[0, 17]]))
    with pytest.raises(ValueError, match="span -1"):
        codec.decode(torch.tensor([[0, -1]]))
    for bad in (good.float(), good[0], good[:, :0], torch.cat((good, good), dim=1), good.bool()):
        with pytest.raises(ValueError, match=r"expected integers \[T, n\] with n from 1 to n_codebooks 5"):
            codec.decode(bad)
    for bad in (torch.zeros(2, 24), torch.zeros(24, dtype=torch.int16)):
        with pytest.raises(ValueError, match=r"waveform 1 .* expected float samples"):
            codec.encode([torch.zeros(24), bad])


def test_weights_may_come_in_any_order_and_half_precision():
    codec = Codec(CodecConfig.from_dict(config_dict()))
    codec.load_weights((name, tensor) for name, tensor in reversed(checkpoint_tensors().items()))
    codes = golden_codes("random")
    assert torch.equal(codec.decode(codes), golden_codec("ctx10").decode(codes))
    codec.load_weights((name, tensor.bfloat16()) for name, tensor in checkpoint_tensors().items())
    assert all(p.dtype == torch.float32 for p in codec.parameters())
    assert not torch.equal(codec.decode(codes), golden_codec("ctx10").decode(codes))


def test_weights_that_do_not_fit_are_refused_by_name():
    codec = Codec(CodecConfig.from_dict(config_dict()))
    good = list(checkpoint_tensors().items())
    for lacking in (
        "decoder.0.transformer.layers.0.norm1.bias",
        "quantizer.input_proj.parametrizations.weight.original0",
    ):
        with pytest.raises(ValueError, match=f"missing: {lacking}$"):
            codec.load_weights((name, tensor) for name, tensor in good if name != lacking)
    with pytest.raises(ValueError, match=r"missing: encoder\.1\..* and \d+ more"):
        codec.load_weights([])
    with pytest.raises(ValueError, match=r"'decoder\.0\.extra' is not in this config"):
        codec.load_weights([*good, ("decoder.0.extra", torch.zeros(1))])
    with pytest.raises(ValueError, match=f"'{good[3][0]}' came twice"):
        codec.load_weights([*good, good[3]])
    name, tensor = good[0]
    with pytest.raises(ValueError, match=f"'{name}' has shape .* the config says"):
        codec.load_weights([(name, tensor[..., None]), *good[1:]])


def test_folded_weight_norm_is_torchs():
    halves = torch.rand(4, 1, 1) + 0.5, torch.randn(4, 6, 1)
    conv = torch.nn.Conv1d(6, 4, 1, bias=False)
    torch.nn.utils.parametrizations.weight_norm(conv)
    conv.load_state_dict({f"parametrizations.weight.original{i}": half for i, half in enumerate(halves)})
    torch.testing.assert_close(fold_weight_norm(*halves)[..., None], conv.weight.detach())


def test_parameters_are_float32_and_tables_are_not_saved():
    torch.set_default_dtype(torch.bfloat16)
    try:
        codec = Codec(CodecConfig.from_dict(tiny_config()))
        codec.load_state_dict(tiny_codec().state_dict())
        codec.post_load()
        codes = random_codes(codec, 9, 5)
        assert torch.equal(codec.decode(codes), tiny_codec().decode(codes))
        state = codec.new_state(1)
        waveform = codec.decode_step(state, codes[None], torch.tensor([9]), torch.tensor([0]))
    finally:
        torch.set_default_dtype(torch.float32)
    assert waveform.dtype == torch.float32
    assert {tensor.dtype for tensor in codec.state_dict().values()} == {torch.float32}
    assert set(codec.state_dict()) == {name for name, _ in codec.named_parameters()}


def test_dummy_weights_work_after_post_load_alone():
    codec = Codec(CodecConfig.from_dict(tiny_config()))
    with pytest.raises(RuntimeError, match="post_load"):
        codec.decode(torch.zeros(1, 5, dtype=torch.int64))
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.zero_()
    codec.post_load()
    assert codec.encode([torch.ones(24)])[0].shape == (2, 5)
    assert codec.decode(torch.zeros(3, 5, dtype=torch.int64)).tolist() == [0.0] * 36


# Measured: 78 and 61 dB, as many bits apart as the mantissas are.
@pytest.mark.parametrize(("dtype", "least_snr_db"), [(torch.float16, 72), (torch.bfloat16, 54)])
@pytest.mark.parametrize("context", CONTEXTS)
def test_half_precision_decodes_close_to_float32(dtype, least_snr_db, context):
    codec = copy.deepcopy(golden_codec(context))
    codec.to_serving_dtype(dtype)
    for case in ("random", "enc"):
        codes = golden_codes(case)
        expected = golden_codec(context).decode(codes)
        waveform = codec.decode(codes)
        assert waveform.dtype == torch.float32
        snr_db = 10 * torch.log10(expected.square().sum() / (waveform - expected).square().sum())
        assert least_snr_db < snr_db < 90
        n_frames, slots = torch.tensor([len(codes)]), torch.tensor([0])
        for state in (codec.new_state(1), codec.new_state(1, torch.float32)):
            [stepped] = codec.decode_step(state, codes[None], n_frames, slots)
            assert 10 * torch.log10(expected.square().sum() / (stepped - expected).square().sum()) > least_snr_db


def test_only_the_decoders_linear_layers_and_states_become_half():
    codec = copy.deepcopy(tiny_codec())
    codec.to_serving_dtype(torch.float16)
    half = {name for name, p in codec.named_parameters() if p.dtype == torch.float16}
    linear = r"decoder\.\d\.layers\.\d\.(qkv|attention_out|up|down)\.weight"
    assert half == {name for name, _ in codec.named_parameters() if re.fullmatch(linear, name)}
    assert {p.dtype for p in codec.parameters()} == {torch.float16, torch.float32}
    assert codec.new_state(1).memory.dtype == torch.float16
    assert codec.new_state(1, torch.float32).memory.dtype == torch.float32
    assert codec.slot_bytes(torch.float32) - 8 == 2 * (codec.slot_bytes(torch.float16) - 8)  # and a count of frames
    waveform = torch.randn(60, generator=torch.Generator().manual_seed(1))
    assert torch.equal(codec.encode([waveform])[0], tiny_codec().encode([waveform])[0])


def test_float32_as_serving_dtype_changes_nothing():
    codec = copy.deepcopy(tiny_codec())
    codec.to_serving_dtype(torch.float32)
    codes = random_codes(codec, 9, 5)
    assert torch.equal(codec.decode(codes), tiny_codec().decode(codes))


def test_weights_beyond_the_serving_dtype_are_refused_by_name():
    for value, dtype in ((70_000.0, torch.float16), (torch.nan, torch.float16), (torch.inf, torch.bfloat16)):
        codec = copy.deepcopy(tiny_codec())
        codec.get_parameter("decoder.2.layers.0.up.weight")[1, 2] = value
        with pytest.raises(ValueError, match=r"decoder\.2\.layers\.0\.up\.weight is not finite in torch\."):
            codec.to_serving_dtype(dtype)
        assert {p.dtype for p in codec.parameters()} == {torch.float32}
        assert codec.new_state(1).memory.dtype == torch.float32


@pytest.mark.parametrize("context", CONTEXTS)
def test_windows_are_the_context_at_each_stages_rate(context):
    config = CodecConfig.from_dict(config_dict(context))
    shapes = [s for s in (*config.encoder, *config.decoder) if isinstance(s, TransformerShape)]
    assert config.frame_rate == config.sampling_rate / config.frame_samples
    for shape in shapes:
        assert shape.window == int(config.frame_rate * shape.rows_per_frame * config.context_s)
    for side in (config.encoder, config.decoder):
        assert min(shape.rows_per_frame for shape in side if isinstance(shape, TransformerShape)) == 1


def changed_stage(**changes):
    config = tiny_config()
    config["decoder_kwargs"][0] |= changes
    return config


def changed_quantizer(**changes):
    return tiny_config(quantizer_kwargs=tiny_config()["quantizer_kwargs"] | changes)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed_stage(causal=False), r"decoder_kwargs\[0\].causal is False, only True"),
        (changed_stage(gating="silu"), r"decoder_kwargs\[0\].gating is 'silu', only 'none'"),
        (changed_stage(norm="rms_norm"), "norm is 'rms_norm', only 'layer_norm'"),
        (changed_stage(positional_embedding="sin_rope"), "positional_embedding is 'sin_rope', only 'rope'"),
        (changed_stage(weights_per_step=4), "weights_per_step is 4"),
        (changed_stage(context_duration=3), "fields that are not implemented: context_duration"),
        (changed_stage(module_type="Conv"), "module_type is 'Conv'"),
        (changed_stage(num_heads=4), "d_model 12 does not split into num_heads 4 heads of even size"),
        (changed_stage(input_dimension=10), "input_dimension is 10, the stage before gives 12"),
        (changed_stage(num_layers=0), "num_layers is 0, expected a positive integer"),
        (changed_stage(max_period=-1), "max_period is -1, expected a positive number"),
        (changed_quantizer(quantizer_type="rvq"), "quantizer_type is 'rvq'"),
        (changed_quantizer(codebook_size=None), "has no codebook_size"),
        (changed_quantizer(input_dim=10), "rows of width 12 a frame, expected 1 row of quantizer_kwargs.input_dim 10"),
        (tiny_config(quantizer_type="spec_rvq"), "quantizer_type is 'spec_rvq'"),
        (tiny_config(downsample_rate=24), "expected 1 row"),
        (tiny_config(downsample_rate=16), "patch_size 6 does not divide 16 rows"),
        (tiny_config(decoder_kwargs=tiny_config()["decoder_kwargs"][:-1]), "decoder_kwargs end with 6 rows of width 2"),
        (tiny_config(causal_transformer_context_duration=0.05), "shorter than one row"),
        (tiny_config(causal_transformer_context_duration=True), "is True, expected a positive number"),
        (tiny_config(sample_rate=24000), r"say \[120, 24000\]"),
        (tiny_config(number_channels=2), "number_channels is 2"),
        (tiny_config(encoder_kwargs=None), "has no encoder_kwargs"),
    ],
)
def test_configs_that_are_not_implemented_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        CodecConfig.from_dict(config)
