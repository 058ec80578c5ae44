"""What is compared, and how errors are counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.evaluation.error_rates import character_errors, pieces_of, word_errors
from sglang_moss.evaluation.spoken_words import language_of, tokens_of

pytestmark = pytest.mark.wide

tokens = st.lists(st.sampled_from(["a", "b", "cd", "你", "好"]), max_size=8)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello, WORLD! [laugh]", "en", "hello world"),
        ("Mr. Brown doesn't owe me twenty dollars.", "en", "mister brown does not owe me $20"),
        ("The colour of the theatre", "en", "the color of the theater"),
        ("你好，世界。[笑]", "zh", "你 好 世 界"),
        ("我用 SGLang 部署", "zh", "我 用 sglang 部 署"),
        ("?!...", "en", ""),
    ],
)
def test_text_is_scored_as_it_sounds(text, language, expected):
    assert " ".join(tokens_of(text, language)) == expected


@pytest.mark.parametrize(("text", "language"), [("Hello 你", "en"), ("你好 ok", "zh"), ("123", "en"), ("我用SG", "zh")])
def test_a_text_is_chinese_if_half_of_its_letters_are(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("said", "heard", "counts"),
    [
        ("a b c d", "a x c d", (1, 0, 0)),
        ("a b c d", "a c d", (0, 1, 0)),
        ("a b", "a b b", (0, 0, 1)),
        ("a b", "", (0, 2, 0)),
        ("", "a b", (0, 0, 2)),
    ],
)
def test_errors_are_told_apart(said, heard, counts):
    errors = word_errors(said.split(), heard.split())
    assert (errors.substituted, errors.deleted, errors.inserted) == counts
    assert errors.n == len(said.split())
    assert errors.count == sum(counts)


def test_characters_are_counted_without_blanks():
    assert character_errors(["ice", "cream"], ["icec", "ream"]).count == 0
    errors = character_errors(["ice", "cream"], ["ice", "dream"])
    assert (errors.n, errors.count, errors.rate) == (8, 1, 1 / 8)


@given(tokens, tokens)
def test_errors_are_a_distance(said, heard):
    there, back = word_errors(said, heard), word_errors(heard, said)
    assert there.count == back.count
    assert (there.count == 0) == (said == heard)
    assert abs(len(said) - len(heard)) <= there.count <= max(len(said), len(heard))


@given(tokens, tokens)
def test_the_alignment_covers_both_sides_once(said, heard):
    pieces = list(pieces_of(said, heard))
    assert [token for piece in pieces for token in said[slice(*piece.said)]] == said
    assert [token for piece in pieces for token in heard[slice(*piece.heard)]] == heard
    for piece in pieces:
        assert (piece.kind == "equal") == (said[slice(*piece.said)] == heard[slice(*piece.heard)])
