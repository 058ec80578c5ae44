"""The codec of the small voice: its layout, and that what is trained is what is served."""

import json

import numpy as np
import pytest
import torch
from small_voice.codec_config import SHAPES, codec_config, load_codec, new_codec, save_codec
from small_voice.codec_data import ClipSource
from small_voice.codec_forward import decode_frames, encode_frames, quantize
from small_voice.codec_losses import SpectralLoss, letters_of, mel_basis
from small_voice.codec_steps import CodecSteps, Weights
from small_voice.hearing import error_rate
from small_voice.language_model import model_config, write_untrained
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


def test_steps_lower_the_loss(tmp_path):
    writer = Writer(tmp_path, 0)
    time = np.arange(1920 * 12) / 24_000
    writer.put("Hello there.", "rms", (6000 * np.sin(2 * np.pi * 220 * time)).astype(np.int16))
    source = ClipSource(Store.open(tmp_path), torch.device("cpu"))
    torch.manual_seed(0)
    steps = CodecSteps(new_codec(codec_config("tiny", 8, 64)), 2e-3, Weights(), compiles=False)
    rng = np.random.default_rng(0)
    mels = []
    for _ in range(24):
        clips = source.draw(rng, 2, 1920 * 16)
        told = steps.step(clips, torch.full((2,), 8), judged=None, restarts=None)
        mels.append(float(told["mel"]))
    assert clips.n_letters.tolist() == [len(letters_of("Hello there."))] * 2
    assert min(mels[-4:]) < 0.85 * mels[0]
    judged = steps.step(clips, torch.full((2,), 8), judged=slice(0, 1920 * 8), restarts=0.05)
    assert all(torch.isfinite(value) for value in judged.values())


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
