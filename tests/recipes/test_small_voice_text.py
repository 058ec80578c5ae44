"""Texts of the small voice: the same for a seed, of known words, and none of those it is judged by."""

import pytest
from small_voice.held_out import held_out_sentences, judged_dialogues, judged_sentences
from small_voice.language_model import model_config, write_untrained
from small_voice.sentences import Sentences, bare, known_words
from small_voice.tokenizer import token_ids
from transformers import Qwen2Tokenizer

from sglang_moss.request.template import TTSD
from sglang_moss.request.text import normalize_text

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("untrained")
    write_untrained(directory, model_config("tiny", 8, 64))
    return Qwen2Tokenizer.from_pretrained(str(directory))


def test_sentences_are_a_function_of_seed_and_number():
    one, other = Sentences(1), Sentences(2)
    texts = [one.turn(i) for i in range(200)]
    again = Sentences(1)
    assert texts == [again.turn(i) for i in reversed(range(200))][::-1]
    assert texts != [other.turn(i) for i in range(200)]
    assert len(set(texts)) > 180


def test_every_word_can_be_heard():
    sentences = Sentences(3)
    words = {word for i in range(5000) for word in bare(sentences.turn(i)).split()}
    assert words <= known_words()
    assert len(words) > 7000
    assert {word for text in judged_sentences() for word in bare(text).split()} <= known_words()


def test_what_is_judged_is_never_made():
    left_out = frozenset({bare(Sentences(1)[7])})
    assert bare(Sentences(1, left_out)[7]) not in left_out
    assert len(held_out_sentences()) == 50
    assert all(2 <= len(turns) <= 4 for turns in judged_dialogues(20))


def test_texts_are_letters_and_the_template_is_short(tokenizer):
    text = normalize_text("[S1] Nobody can tell. [S2] Into the garden; really?")
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    lower = tokenizer.encode("every letter is one", add_special_tokens=False)
    assert len(lower) == len("every letter is one")
    turn = TTSD.user_turn({"text": "[S1]a."}, None)
    assert len(tokenizer.encode(turn, add_special_tokens=False)) < 75


def test_control_tokens_have_their_ids(tokenizer):
    assert tokenizer.get_added_vocab() == token_ids()
    for content, token_id in token_ids().items():
        assert tokenizer.encode(content, add_special_tokens=False) == [token_id]
