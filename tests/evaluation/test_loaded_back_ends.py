"""The back ends whose weights are downloaded, each with a small random network in the published form."""

from pathlib import Path

import numpy as np
import pytest
from judged_speech import RATE, clip
from tiny_listeners import tiny_wavlm, tiny_whisper

from sglang_moss.evaluation import embedders, recognisers
from sglang_moss.evaluation.errors import CannotJudge

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("whisper") / "model")


def assert_hears(recogniser) -> None:
    samples = np.tile(clip("slt_wish"), 2)
    heard = recogniser.hear(samples, "en")
    assert heard == recogniser.hear(samples, "en")
    assert isinstance(heard.text, str)
    seconds = len(samples) / RATE
    assert all(0 <= word.start_s <= word.end_s <= seconds + 30 for word in heard.words)


def test_whisper_of_transformers_is_loaded_from_a_folder(whisper_folder):
    recogniser = recognisers.load_recogniser("whisper", str(whisper_folder), "cpu")
    assert recogniser.versions.keys() == {"transformers", "torch"}
    assert_hears(recogniser)


def test_faster_whisper_is_loaded_from_a_converted_folder(whisper_folder, tmp_path):
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(whisper_folder), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(
        str(tmp_path / "converted")
    )
    assert_hears(recognisers.load_recogniser("faster-whisper", str(tmp_path / "converted"), "cpu"))


def test_wavlm_is_loaded_from_a_folder(tmp_path):
    embedder = embedders.load_embedder("wavlm", str(tiny_wavlm(tmp_path / "wavlm")), "cpu")
    embedding = embedder.embed(clip("slt_wish"))
    assert embedding.shape == (16,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(embedding, embedder.embed(clip("slt_wish")))


def test_wespeaker_is_loaded_from_a_file():
    """A linear layer of random numbers, negative outputs cut off, the mean over time; made with onnx's helpers."""
    network = Path(__file__).with_name("speaker_network.onnx")
    embedder = embedders.load_embedder("wespeaker", str(network), "cpu")
    embedding = embedder.embed(clip("slt_wish"))
    assert embedding.shape == (8,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    # Each band is less its mean, so loudness, which is a constant in every band, is not heard.
    np.testing.assert_allclose(embedder.embed(clip("slt_wish") * np.float32(0.5)), embedding, atol=1e-3)


@pytest.mark.parametrize(
    "load",
    [
        lambda path: recognisers.load_recogniser("whisper", path, "cpu"),
        lambda path: recognisers.load_recogniser("faster-whisper", path, "cpu"),
        lambda path: embedders.load_embedder("wavlm", path, "cpu"),
    ],
)
def test_a_folder_without_a_model_is_refused(load, tmp_path):
    with pytest.raises(CannotJudge, match="cannot load"):
        load(str(tmp_path))
