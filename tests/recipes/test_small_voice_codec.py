"""The codec of the small voice: its layout, and that what is trained is what is served."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from small_voice.codebooks import limit_scales
from small_voice.codec_config import SHAPES, codec_config, load_codec, new_codec, save_codec
from small_voice.codec_data import ClipSource
from small_voice.codec_forward import decode_frames, encode_frames, quantize
from small_voice.codec_losses import SpectralLoss, mel_basis
from small_voice.codec_steps import NAMES, PLAN_ROWS, CodecSteps, Sizes, Weights
from small_voice.ctc import ctc_losses
from small_voice.hearing import error_rate
from small_voice.language_model import model_config, write_untrained
from small_voice.letters import letters_of
from small_voice.speech_store import Store, Writer

from sglang_moss.fuse import fuse

pytestmark = pytest.mark.wide

torch.set_num_threads(1)  # on a busy machine, threads cost these small tensors many times their arithmetic


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    config = codec_config("tiny", 8, 64)
    directory = tmp_path_factory.mktemp("codec")
    save_codec(directory, config, new_codec(config))
    return directory


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "tiny"])
def test_codecs_are_small(shape):
    with torch.device("meta"):
        codec = new_codec(codec_config(shape, 8, 512))
    assert sum(p.numel() for p in codec.parameters()) < 12e6
    assert codec.config.frame_samples == 1920


def test_training_computes_what_is_served(saved):
    codec = load_codec(saved)
    samples = 0.1 * torch.randn(2, 1920 * 25, generator=torch.Generator().manual_seed(1))
    hidden = encode_frames(codec, samples)
    torch.testing.assert_close(hidden, codec.encoder_hidden(samples), rtol=1e-5, atol=1e-5)
    quantized = quantize(codec.quantizer, hidden)
    assert torch.equal(quantized.codes, torch.stack(codec.encode(list(samples))))
    made = decode_frames(codec, quantized.output)[0]
    torch.testing.assert_close(made, codec.decode(quantized.codes[0]), rtol=1e-4, atol=1e-5)


def test_shorter_vectors_make_the_same(saved):
    codec = load_codec(saved)
    with torch.no_grad():
        for book in codec.quantizer.quantizers:
            for tensor in (book.in_proj.weight, book.in_proj.bias, book.codebook.weight):
                tensor.mul_(3e5)
            book.out_proj.weight.div_(3e5)
    hidden = torch.randn(1, 25, codec.config.quantizer.input_dim, generator=torch.Generator().manual_seed(2))
    before = quantize(codec.quantizer, hidden)
    limit_scales(codec.quantizer)
    after = quantize(codec.quantizer, hidden)
    assert all(book.codebook.weight.square().mean().sqrt() < 1001 for book in codec.quantizer.quantizers)
    assert torch.equal(before.codes, after.codes)
    torch.testing.assert_close(before.output, after.output, rtol=1e-4, atol=1e-5)


def test_gradients_of_books_do_not_multiply(saved):
    norms = []
    for factor in (1, 100):
        codec = load_codec(saved)
        with torch.no_grad():
            for book in codec.quantizer.quantizers:
                book.in_proj.weight.mul_(factor)
        hidden = torch.randn(1, 25, codec.config.quantizer.input_dim, generator=torch.Generator().manual_seed(2))
        hidden.requires_grad_()
        quantize(codec.quantizer, hidden).output.square().mean().backward()
        norms.append(hidden.grad.norm())
    assert 0 < norms[1] < 1000 * norms[0]


def test_rounding_twice_is_rounding_once(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    once = load_codec(saved)
    save_codec(tmp_path / "again", config, once)
    for (name, a), b in zip(once.named_parameters(), load_codec(tmp_path / "again").parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-6, msg=name)


def test_pair_can_be_fused(saved, tmp_path):
    write_untrained(tmp_path / "ttsd", model_config("tiny", 8, 64))
    fuse(tmp_path / "ttsd", saved, tmp_path / "fused")
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert config["codec_config"]["quantizer_kwargs"]["codebook_size"] == config["audio_vocab_size"]


@pytest.fixture
def source(tmp_path):
    writer = Writer(tmp_path / "speech", 0)
    time = np.arange(1920 * 12) / 24_000
    writer.put("Hello there.", "rms", (6000 * np.sin(2 * np.pi * 220 * time)).astype(np.int16))
    return ClipSource(Store.open(tmp_path / "speech"), torch.device("cpu"))


def new_steps(source, rate=2e-3):
    torch.manual_seed(0)
    sizes = Sizes(2, 1920 * 16, 1, 1920 * 8)
    return CodecSteps(new_codec(codec_config("tiny", 8, 64)), source, sizes, rate, Weights(), "eager")


def train(steps, source, n, judged=False):
    """Losses of each step."""
    rng, told = np.random.default_rng(0), []
    for _ in range(n):
        plan = np.zeros((PLAN_ROWS, 2), np.int64)
        plan[:5], plan[5] = source.plan(rng, 2, 1920 * 16), 8
        steps.plan.copy_(torch.from_numpy(plan))
        steps.told.zero_()
        steps.step(judged=judged)
        told.append(dict(zip(NAMES, steps.told.tolist(), strict=True)))
    return told


def test_steps_lower_the_loss(source):
    steps = new_steps(source)
    told = train(steps, source, 14)
    assert min(row["mel"] for row in told[-4:]) < 0.85 * told[0]["mel"]
    assert told[-1]["words"] < told[0]["words"]
    steps.share_heard.fill_(1.0), steps.share_judged.fill_(1.0)
    before = [p.detach().clone() for p in steps.judges.parameters()]
    assert all(np.isfinite(value) for value in train(steps, source, 1, judged=True)[0].values())
    assert any(not torch.equal(a, b) for a, b in zip(before, steps.judges.parameters(), strict=True))


def test_state_is_gone_on_from(source):
    steps, again = new_steps(source), new_steps(source)
    train(steps, source, 3)
    again.load(deepcopy(steps.state()))
    assert train(again, source, 2) == train(steps, source, 2)


def test_what_is_no_number_changes_nothing(source):
    steps = new_steps(source)
    group = steps.groups["codec"]
    before = [p.detach().clone() for p in group.parameters]
    group.vector.fill_(float("nan"))
    steps.follow(judged=False)
    assert int(group.n_bad) == 1
    for a, b in zip(before, group.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2.1e-5)  # the weights' decay


def test_codes_stay_when_the_decoder_is_trained_alone(source):
    torch.manual_seed(0)
    codec = new_codec(codec_config("tiny", 8, 64))
    steps = CodecSteps(codec, source, Sizes(2, 1920 * 16, 1, 1920 * 8), 2e-3, Weights(), "eager", keeps_codes=True)
    samples = source.draw(np.random.default_rng(0), 1, 1920 * 16).samples
    before, decoder = quantize(codec.quantizer, encode_frames(codec, samples)).codes, deepcopy(codec.decoder)
    train(steps, source, 2)
    assert torch.equal(quantize(codec.quantizer, encode_frames(codec, samples)).codes, before)
    assert any(not torch.equal(a, b) for a, b in zip(decoder.parameters(), codec.decoder.parameters(), strict=True))


def test_codebooks_follow_what_is_sought(source):
    steps = new_steps(source, rate=0.0)
    train(steps, source, 1)
    steps.codebooks.restart_dead(steps.sought, 1e9)
    apart = [row["vq"] for row in train(steps, source, 30)]
    assert apart[-1] < apart[0]


def test_letters_cost_what_torch_says():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 5, 7, generator=generator, requires_grad=True)
    targets = torch.randint(1, 7, (5, 9), generator=generator)
    targets[0, :4] = 3
    lengths = torch.tensor([4, 9, 0, 1, 6])
    weights = torch.rand(5, generator=generator)
    n_steps = torch.full((5,), 20)
    expected = torch.nn.functional.ctc_loss(scores.log_softmax(-1), targets, n_steps, lengths, reduction="none")
    expected = torch.where(lengths > 0, expected, 0.0)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), scores)
    found = ctc_losses(scores.log_softmax(-1), targets, lengths)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), scores)[0], gradient, rtol=1e-4, atol=1e-5)


def test_letters_that_do_not_fit_cost_nothing():
    scores = torch.randn(5, 1, 7).log_softmax(-1).requires_grad_()
    loss = ctc_losses(scores, torch.full((1, 9), 2), torch.tensor([9]))
    assert loss.tolist() == [0]
    assert float(torch.autograd.grad(loss.sum(), scores)[0].abs().sum()) == 0


def test_clips_hold_their_letters(source):
    clips = source.draw(np.random.default_rng(0), 2, 1920 * 16)
    assert clips.n_letters.tolist() == [len(letters_of("Hello there."))] * 2


def test_equal_waves_have_no_distance():
    wave = 0.1 * torch.randn(1, 24_000)
    mel, phase = SpectralLoss()(wave, wave)
    assert float(mel) == float(phase) == 0
    assert (mel_basis(64, 5).sum(1) - 1).abs().max() < 1e-5


def test_store_reads_what_is_whole(tmp_path):
    writer = Writer(tmp_path, 3)
    writer.put("One.", "awb", np.arange(1920, dtype=np.int16))
    with (tmp_path / "03.jsonl").open("a") as file:
        file.write('["Half a li')
    store = Store.open(tmp_path)
    assert store.texts == ["One."]
    assert store[0].tolist() == list(range(1920))


def test_word_error_rate_counts_words():
    assert error_rate(["The cat sat.", "Yes!"], ["the cat sat", "yes no"]) == pytest.approx(1 / 4)
