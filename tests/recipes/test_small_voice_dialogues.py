"""Dialogues of the small voice: their lengths are known before they are made, and are right; letters are where they
are asked for."""

import json
import pickle

import numpy as np
import pytest
import torch
from small_voice.alignment import LETTERS, align
from small_voice.codec_config import codec_config, load_codec, new_codec, save_codec
from small_voice.dialogues import Dialogues
from small_voice.encode import CODES
from small_voice.language_model import model_config, write_untrained
from small_voice.letter_book import N_SIGNS, UNKNOWN, add, codes_of_pairs, is_there, refuse, remove
from small_voice.letters import ALPHABET, letters_of
from small_voice.pack_codes import pack, unpack
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


def test_letters_lead_where_they_are_spoken_and_are_unknown_where_only_sound_is_given(dialogues):
    directory, n, seed, tokenizer, tokens, part = dialogues._settings
    total = int(np.load(directory / "index.npz")["n_frames"].sum())
    letters = np.random.default_rng(1).integers(0, N_SIGNS, (total, 2)).astype(np.uint8)
    letters.tofile(directory / LETTERS)
    more = special_tokens(model_config("tiny", 8 + 1, 64))
    made = Dialogues(directory, n, seed, tokenizer, more, part=part)
    made = pickle.loads(pickle.dumps(made.take(made.measure())))
    packs = PackDataset(made, tokenizer, more, TTSD, "served")
    table = codes_of_pairs(tokens.pad_code)
    n_continued = 0
    for e in range(0, N, 3):
        packs.rows_of(e)  # refuses another number of rows
        example, alone, script = made[e], dialogues[e], made.script(e)
        assert np.array_equal(example.codes[:, 1:], alone.codes)
        spoken = [i for _, utterances in script.spoken() for i in utterances]
        own = np.concatenate([letters[made._starts[i] : made._starts[i + 1]] for i in spoken])
        assert np.array_equal(example.codes[:, 0], table[own[:, 0], own[:, 1]])
        for clip, clip_alone in zip(example.references or (), alone.references or (), strict=True):
            assert np.array_equal(clip[:, 1:], clip_alone)
            assert (clip[:, 0] == UNKNOWN).all()
        if not script.continues:
            assert example.shown is None
            continue
        n_continued += 1
        n_given = sum(map(len, example.references))
        assert (example.shown[:n_given, 0] == UNKNOWN).all()
        assert np.array_equal(example.shown[n_given:, 0], example.codes[n_given:, 0])
        assert np.array_equal(example.shown[:, 1:], example.codes[:, 1:])
    assert n_continued > 5


@pytest.mark.parametrize("size", [512, 64])
def test_every_pair_of_letters_has_a_code_and_none_is_the_unknown(size):
    table = codes_of_pairs(size).astype(int)
    assert table.min() > UNKNOWN
    assert table.max() < size
    first_of = {}
    for (first, _), code in np.ndenumerate(table):
        assert first_of.setdefault(code, first) == first  # the letter itself is never lost
    common = table[1 + ALPHABET.index("t"), 1 + ALPHABET.index("h")]
    assert (table == common).sum() == 1


def test_a_codebook_without_room_for_letters_is_refused():
    with pytest.raises(ValueError, match="a codebook of 16 has no room for 29 signs"):
        codes_of_pairs(16)


def test_a_codec_with_a_book_of_letters_sounds_and_hears_as_before(tmp_path):
    config = codec_config("tiny", 8, 64)
    torch.manual_seed(0)
    save_codec(tmp_path / "plain", config, new_codec(config))
    add(tmp_path / "plain", tmp_path / "lettered")
    plain, lettered = load_codec(tmp_path / "plain"), load_codec(tmp_path / "lettered")
    waves = [0.1 * torch.randn(1920 * n, generator=torch.Generator().manual_seed(n)) for n in (7, 3)]
    for before, codes in zip(plain.encode(waves), lettered.encode(waves), strict=True):
        assert (codes[:, 0] == UNKNOWN).all()
        assert torch.equal(codes[:, 1:], before)
        spoken = codes.clone()
        spoken[:, 0] = torch.arange(len(codes)) % 64
        assert torch.equal(lettered.decode(spoken), plain.decode(before))
    assert [is_there(tmp_path / name) for name in ("plain", "lettered")] == [False, True]
    with pytest.raises(SystemExit, match="letter_book remove"):
        refuse(tmp_path / "lettered")
    remove(tmp_path / "lettered", tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_short_utterances_come_first(dialogues):
    lengths = [int(dialogues.n_frames[e]) for e in range(int(0.3 * N)) if not dialogues.script(e).continues]
    assert np.mean(lengths[: len(lengths) // 3]) < 0.7 * np.mean(lengths[-len(lengths) // 3 :])


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
        later = np.concatenate([letters, np.zeros(1, np.int64)])[states + 1]
        truth.append(np.stack([letters[states], later], 1))
        n_frames.append(len(states))
    found = align(np.concatenate(codes).astype(np.uint16), np.array(n_frames), texts, torch.device("cpu"), 64)
    assert (found == np.concatenate(truth)).mean(0).min() > 0.95


def test_packed_codes_come_back_as_they_were(dialogues, tmp_path):
    encoded = dialogues._settings[0]
    np.save(encoded / "lengths-training-8.npy", np.array([[30, 200]], np.int32))
    pack(encoded, tmp_path / "codes.npz")
    unpack([tmp_path / "codes.npz"], tmp_path / "again")
    for name in (CODES, "texts.json"):
        assert (tmp_path / "again" / name).read_bytes() == (encoded / name).read_bytes()
    for name in ("index.npz", "lengths-training-8.npy"):
        before, after = np.load(encoded / name), np.load(tmp_path / "again" / name)
        if name.endswith("npz"):
            assert all(np.array_equal(before[key], after[key]) for key in before.files)
        else:
            assert np.array_equal(before, after)


def test_several_files_of_codes_follow_each_other(dialogues, tmp_path):
    encoded = dialogues._settings[0]
    pack(encoded, tmp_path / "codes.npz")
    unpack([tmp_path / "codes.npz"] * 2, tmp_path / "twice")
    with np.load(tmp_path / "codes.npz") as packed:
        np.savez(tmp_path / "others.npz", **{**packed, "low": packed["low"][: len(packed["low"]) // 2]})
    with pytest.raises(ValueError, match="files of 4, 8 codebooks"):
        unpack([tmp_path / "codes.npz", tmp_path / "others.npz"], tmp_path / "mixed")
    assert (tmp_path / "twice" / CODES).read_bytes() == (encoded / CODES).read_bytes() * 2
    assert json.loads((tmp_path / "twice" / "texts.json").read_text()) == 2 * json.loads(
        (encoded / "texts.json").read_text()
    )
    before, after = np.load(encoded / "index.npz"), np.load(tmp_path / "twice" / "index.npz")
    assert all(np.array_equal(np.concatenate([before[key]] * 2), after[key]) for key in before.files)
    assert not list((tmp_path / "twice").glob("lengths-*"))  # those of other examples
