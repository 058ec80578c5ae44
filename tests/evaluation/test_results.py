"""Results in JSON, and two of them held together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.evaluation.comparison import compare, table_of
from sglang_moss.evaluation.errors import CannotJudge
from sglang_moss.evaluation.results import Errors, Figure, ItemScore, Result, SignalScore, TurnScore

pytestmark = pytest.mark.wide

texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.floats(-1e6, 1e6)
counts = st.integers(0, 1000)
errors = st.builds(Errors, n=counts, substituted=counts, deleted=counts, inserted=counts)
turns = st.builds(
    TurnScore,
    speaker=st.integers(1, 5),
    text=texts,
    start_s=numbers,
    end_s=numbers,
    similarities=st.dictionaries(st.integers(1, 5), st.floats(-1, 1), max_size=5),
)
signals = st.builds(
    SignalScore,
    seconds=numbers,
    level_dbfs=numbers,
    clipped_samples=counts,
    silence_start_s=numbers,
    silence_end_s=numbers,
    longest_silence_s=numbers,
    letters_per_second=numbers,
    flags=st.lists(texts, max_size=3),
)
items = st.builds(
    ItemScore,
    id=texts,
    language=st.sampled_from(["en", "zh"]),
    audio=st.none() | texts,
    problem=st.none() | texts,
    said=texts,
    heard=texts,
    heard_text=texts,
    words=st.none() | errors,
    characters=st.none() | errors,
    turns=st.lists(turns, max_size=3),
    signal=st.none() | signals,
    notes=st.lists(texts, max_size=2),
)
figures = st.builds(Figure, value=numbers, low=st.none() | numbers, high=st.none() | numbers, n=counts, n_items=counts)
results = st.builds(
    Result,
    made_at=texts,
    dataset=texts,
    server=st.none() | texts,
    settings=st.dictionaries(texts, st.none() | st.booleans() | st.integers() | numbers | texts, max_size=3),
    versions=st.dictionaries(texts, texts, max_size=3),
    figures=st.dictionaries(st.sampled_from(["wer", "acc"]), figures),
    flags=st.dictionaries(texts, counts, max_size=2),
    n_failed=counts,
    items=st.lists(items, max_size=3),
)


@settings(max_examples=60)
@given(results)
def test_a_result_is_read_as_it_was_written(tmp_path_factory, result):
    path = tmp_path_factory.getbasetemp() / "result.json"
    result.write(path)
    assert Result.read(path) == result


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "no result of `moss-ttsd eval`: the file"), ('{"format": "other"}', "format"), ("[]", "the file")],
)
def test_another_file_is_no_result(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CannotJudge, match=message):
        Result.read(tmp_path / "x.json")


def test_an_unknown_field_is_refused_by_name(tmp_path):
    path = tmp_path / "x.json"
    made("a", []).write(path)
    path.write_text(path.read_text().replace('"n_failed"', '"loudness": 1, "n_failed"'))
    with pytest.raises(CannotJudge, match="loudness"):
        Result.read(path)


def made(name: str, errors_by_item: list[int | None], **more) -> Result:
    scores = [
        ItemScore(id=str(i), language="en", audio=None, problem="no speech")
        if n is None
        else ItemScore(
            id=str(i),
            language="en",
            audio=None,
            words=Errors(n=10, substituted=n, deleted=0, inserted=0),
            turns=[TurnScore(speaker=1, text="hello", start_s=0, end_s=1, similarities={})],
        )
        for i, n in enumerate(errors_by_item)
    ]
    fields = {"settings": {"recogniser": "pocketsphinx"}, "versions": {}, "figures": {}, "flags": {}, "n_failed": 0}
    return Result(**{"made_at": "", "dataset": name, "server": None, **fields, "items": scores, **more})


def test_runs_are_compared_by_what_both_have_judged():
    found = compare(made("a", [4] * 8 + [None]), made("b", [1] * 8 + [0, 0], settings={"recogniser": "whisper"}))
    assert found.items == [str(i) for i in range(8)]
    assert found.left_out == ["8", "9"]
    assert found.remarks == ["recogniser: pocketsphinx and whisper"]
    [difference] = found.differences
    assert (difference.a, difference.b, difference.p_value) == (0.4, 0.1, 2 / 2**8)
    table = table_of(found)
    assert "-0.3000 [-0.3000, -0.3000]" in table
    assert "better" in table
    assert "8 items in both, 2 in one only" in table
    assert "not the same in both: recogniser: pocketsphinx and whisper" in table


def test_a_difference_that_may_be_chance_is_called_so():
    table = table_of(compare(made("a", [4, 4, 4]), made("b", [1, 1, 1])))
    assert "may be chance" in table
    assert "better" not in table


def test_runs_over_other_items_or_scripts_are_not_compared():
    with pytest.raises(CannotJudge, match="no judged item in common"):
        compare(made("a", []), made("b", [1]))
    other = made("b", [1])
    moved = [item.model_copy(update={"turns": []}) for item in other.items]
    with pytest.raises(CannotJudge, match="another script"):
        compare(made("a", [1]), other.model_copy(update={"items": moved}))
