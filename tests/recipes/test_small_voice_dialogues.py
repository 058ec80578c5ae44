"""Dialogues of the small voice: their lengths are known before they are made, and are right."""

import json
import pickle

import numpy as np
import pytest
from small_voice.dialogues import Dialogues
from small_voice.encode import CODES
from small_voice.language_model import model_config, write_untrained
from small_voice.sentences import Sentences
from transformers import Qwen2Tokenizer

from sglang_moss.config import special_tokens
from sglang_moss.request.template import TTSD
from sglang_moss.request.text import normalize_text
from sglang_moss.training.loading import PackDataset

pytestmark = pytest.mark.wide

N = 300


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory):
    directory = tmp_path_factory.mktemp("encoded")
    config = model_config("tiny", 8, 64)
    write_untrained(directory / "ttsd", config)
    tokenizer = Qwen2Tokenizer.from_pretrained(str(directory / "ttsd"))
    rng = np.random.default_rng(0)
    texts = [(text, normalize_text(text)) for text in map(Sentences(1).turn, range(400))]
    n_frames = np.array([len(text) for text, _ in texts], np.int32) + 4
    rng.integers(0, 64, (int(n_frames.sum()), 8)).astype(np.uint16).tofile(directory / CODES)
    n_tokens = [[len(tokenizer.encode(form, add_special_tokens=False)) for form in pair] for pair in texts]
    np.savez(
        directory / "index.npz", n_frames=n_frames, voices=np.arange(400) % 4, n_tokens=np.array(n_tokens, np.int32)
    )
    (directory / "texts.json").write_text(json.dumps(texts))
    made = Dialogues(directory, N, 1, tokenizer, special_tokens(config), part="training")
    return made.take(made.measure())


def test_lengths_are_those_of_the_rows(dialogues):
    _directory, _n, _seed, tokenizer, tokens, _part = dialogues._settings
    packs = PackDataset(dialogues, tokenizer, tokens, TTSD, "served")
    for e in range(N):
        packs.rows_of(e)  # refuses another number of rows
        assert len(dialogues[e].codes) == dialogues.n_frames[e]


def test_a_worker_has_the_same(dialogues):
    copy = pickle.loads(pickle.dumps(dialogues))
    for e in (0, N // 2, N - 1):
        assert copy[e].fields == dialogues[e].fields
        assert np.array_equal(copy[e].codes, dialogues[e].codes)


def test_continued_dialogues_begin_with_their_references(dialogues):
    scripts = [(e, script) for e in range(N) if (script := dialogues.script(e)).continues]
    assert scripts
    for e, script in scripts:
        example = dialogues[e]
        assert example.references is not None
        opening = np.concatenate([codes for codes in example.references if codes is not None])
        assert np.array_equal(example.codes[: len(opening)], opening)
        assert script.references is not None
        assert str(example.fields["text"]).startswith(f"[S1]{' ' * script.is_spaced}")


def test_singles_come_first(dialogues):
    n_speakers = [dialogues.script(e).n_speakers for e in range(N)]
    assert max(n_speakers[: N // 4]) == 1
    assert max(n_speakers) > 1


def test_parts_share_no_utterance(dialogues):
    directory, n, seed, tokenizer, tokens, _part = dialogues._settings
    validation = Dialogues(directory, n, seed, tokenizer, tokens, part="validation")

    def used(of: Dialogues) -> set[int]:
        scripts = [of.script(e) for e in range(100)]
        return {i for s in scripts for i in [*(s.references or []), *(i for _, t in s.turns for i in t)]}

    assert not used(dialogues) & used(validation)
