"""Dialogues of the small voice: their lengths are known before they are made, and are right; letters are where they
are asked for."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_voice.alignment import AHEAD, LETTERS, align
from small_voice.dialogues import Dialogues
from small_voice.encode import CODES
from small_voice.language_model import model_config, write_untrained
from small_voice.letter_channels import N_CHANNELS, add, drop
from small_voice.letters import letters_of
from small_voice.pack_codes import pack, unpack
from small_voice.sentences import Sentences
from transformers import Qwen2Tokenizer

from sglang_moss.config import special_tokens
from sglang_moss.request.template import TTSD
from sglang_moss.request.text import normalize_text
from sglang_moss.training.loading import PackDataset
from sglang_moss.training.model import ModelShape, empty_model
from sglang_moss.training.weights import load_weights

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


def test_letters_are_learnt_on_the_rows_of_their_frames_and_never_read(dialogues):
    directory, n, seed, tokenizer, tokens, part = dialogues._settings
    total = int(np.load(directory / "index.npz")["n_frames"].sum())
    letters = np.random.default_rng(1).integers(0, 28, (total, N_CHANNELS)).astype(np.uint8)
    letters.tofile(directory / LETTERS)
    made = Dialogues(directory, n, seed, tokenizer, tokens, part=part, has_letters=True)
    made = pickle.loads(pickle.dumps(made.take(dialogues.measure())))
    more = special_tokens(model_config("tiny", 8 + N_CHANNELS, 64))
    plain = PackDataset(dialogues, tokenizer, tokens, TTSD, "served")
    packs = PackDataset(made, tokenizer, more, TTSD, "served", n_unread=N_CHANNELS)
    for e in range(0, N, 7):
        rows, labels = packs.rows_of(e)
        rows_alone, labels_alone = plain.rows_of(e)
        assert np.array_equal(rows[:, :-N_CHANNELS], rows_alone)
        assert np.array_equal(labels[:, :-N_CHANNELS], labels_alone)
        assert (rows[:, -N_CHANNELS:] == tokens.pad_code).all()
        spoken = [i for _, utterances in made.script(e).spoken() for i in utterances]
        own = np.concatenate([letters[made._starts[i] : made._starts[i + 1]] for i in spoken])
        is_learnt = labels[:, 1] >= 0  # where a frame is asked for, by its first code
        assert np.array_equal(labels[is_learnt, -N_CHANNELS:], own)
        assert (labels[~is_learnt, -N_CHANNELS:] < 0).all()


def test_short_utterances_come_first(dialogues):
    lengths = [int(dialogues.n_frames[e]) for e in range(int(0.3 * N)) if not dialogues.script(e).continues]
    assert np.mean(lengths[: len(lengths) // 3]) < 0.7 * np.mean(lengths[-len(lengths) // 3 :])


def test_dropping_channels_that_are_never_read_changes_nothing(tmp_path):
    write_untrained(tmp_path / "with", model_config("tiny", 8, 64))
    add(tmp_path / "with", tmp_path / "more")
    shape = ModelShape.from_dict(json.loads((tmp_path / "more" / "config.json").read_text()))
    more = empty_model(shape, torch.device("cpu"), torch.float32)
    load_weights(more, tmp_path / "more")
    with torch.no_grad():
        for embedding in list(more.emb_ext)[-N_CHANNELS:]:
            embedding.weight.normal_()  # as if it had been trained
    save_file(dict(more.state_dict()), tmp_path / "more" / "model.safetensors", {"format": "pt"})
    drop(tmp_path / "more", tmp_path / "without")
    without_shape = ModelShape.from_dict(json.loads((tmp_path / "without" / "config.json").read_text()))
    assert without_shape.tokens.n_vq == 8
    without = empty_model(without_shape, torch.device("cpu"), torch.float32)
    load_weights(without, tmp_path / "without")
    rows = torch.randint(0, 64, (20, 1 + 8 + N_CHANNELS), generator=torch.Generator().manual_seed(0))
    rows[:, -N_CHANNELS:] = shape.tokens.pad_code
    with torch.no_grad():
        text, audio = more(rows)
        text_without, audio_without = without(rows[:, :-N_CHANNELS])
    torch.testing.assert_close(text_without, text)
    torch.testing.assert_close(audio_without, audio[:, :8])


def test_letters_are_found_in_codes_that_follow_them():
    rng = np.random.default_rng(0)
    texts = [text for i in range(200) if len(text := Sentences(1).turn(i)) < 45][:80]
    table = rng.permutation(64)[:29]  # a code of its own for every letter and for silence
    codes, truth, n_frames = [], [], []
    for text in texts:
        letters = np.array([0, *letters_of(text), 0])
        durations = [3, *rng.choice((1, 2), len(letters) - 2, p=(0.7, 0.3)), 4]
        states = np.repeat(np.arange(len(letters)), durations)
        wrong = rng.random((len(states), 4)) < 0.15
        codes.append(np.where(wrong, rng.integers(0, 64, wrong.shape), table[letters[states]][:, None]))
        later = np.concatenate([letters, np.zeros(AHEAD, np.int64)])[states + AHEAD]
        truth.append(np.stack([letters[states], later], 1))
        n_frames.append(len(states))
    found = align(np.concatenate(codes).astype(np.uint16), np.array(n_frames), texts, torch.device("cpu"), 64)
    assert (found == np.concatenate(truth)).mean(0).min() > 0.95


def test_packed_codes_come_back_as_they_were(dialogues, tmp_path):
    encoded = dialogues._settings[0]
    np.save(encoded / "lengths-training-8.npy", np.array([[30, 200]], np.int32))
    pack(encoded, tmp_path / "codes.npz")
    unpack(tmp_path / "codes.npz", tmp_path / "again")
    for name in (CODES, "texts.json"):
        assert (tmp_path / "again" / name).read_bytes() == (encoded / name).read_bytes()
    for name in ("index.npz", "lengths-training-8.npy"):
        before, after = np.load(encoded / name), np.load(tmp_path / "again" / name)
        if name.endswith("npz"):
            assert all(np.array_equal(before[key], after[key]) for key in before.files)
        else:
            assert np.array_equal(before, after)
