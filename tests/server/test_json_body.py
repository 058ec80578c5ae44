"""A body in JSON: what a parser makes of it, whatever its size, and a sentence for what no request needs."""

import asyncio
import json
import re
import threading
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.errors import BadRequest
from sglang_moss.server import json_body
from sglang_moss.server.json_body import parse_json, read_json

LONG = "A" * 70_000
STRINGS = st.one_of(st.text(), st.sampled_from([LONG, LONG + "\\", '"' + LONG, LONG + "é", LONG + "\n", ""]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), STRINGS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=8,
)
FRAGMENTS = [b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"1", b"A" * 70_000]


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "_SMALL_BYTES", 0)


@settings(max_examples=200)
@given(value=VALUES, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_a_value_is_the_one_that_was_written(value: Any, indent: int | None, ascii_only: bool):
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        expected = orjson.loads(body)
    except orjson.JSONDecodeError:  # half of a surrogate pair
        with pytest.raises(BadRequest, match="no valid JSON"):
            parse_json(body)
    else:
        assert parse_json(body) == expected


@settings(max_examples=200)
@given(body=st.lists(st.sampled_from(FRAGMENTS)).map(b"".join))
def test_what_is_no_json_is_refused(body: bytes):
    try:
        expected = orjson.loads(body)
    except orjson.JSONDecodeError:
        with pytest.raises(BadRequest):
            parse_json(body)
    else:
        assert parse_json(body) == expected


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"[" + b"1," * 500_000 + b"1]", "400000 values"),
        (b"[" * 500_000, "400000 values"),
        (b'"' + b'\\"' * 300_000 + b'"', "200000 quotation marks"),
        (b'"' + b"\\\\" * 300_000 + b'"', "64 backslashes"),
        (b" " * (1 << 24) + b"1", "16 MiB beside clips"),
        (b"[" * 900 + b"]" * 900, "no valid JSON"),
        (b'{"text": "' + LONG.encode(), "no valid JSON"),
    ],
    ids=["values", "brackets", "quotes", "backslashes", "blanks", "deep", "no end"],
)
def test_more_than_any_request_needs_is_refused_by_name(body: bytes, what: str):
    with pytest.raises(BadRequest, match=what):
        parse_json(body)


@pytest.mark.parametrize("written", [b"\\/", b"\\u002B", b"\\u003d"])
def test_a_clip_as_other_languages_write_base64_is_one(written: bytes):
    clip = b"ab" + written
    body = b'{"audio_data": ["' + clip * 4_000_000 + b'"]}'  # more than all that is no clip may have
    assert parse_json(body) == {"audio_data": [orjson.loads(b'"' + clip + b'"') * 4_000_000]}


@settings(max_examples=50)
@given(value=VALUES, n_quotes=st.sampled_from([0, 10, 600]))
def test_it_is_the_same_beside_the_event_loop_and_on_it(value: Any, n_quotes: int):
    body = json.dumps([value, ["a"] * n_quotes], ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        expected = parse_json(body)
    except BadRequest as error:
        with pytest.raises(BadRequest, match=re.escape(str(error))):
            asyncio.run(read_json(body))
    else:
        assert asyncio.run(read_json(body)) == expected
        assert asyncio.run(read_json(body)) == expected  # its strings are known by now


@pytest.mark.parametrize("n_quotes", [10, 1000])
def test_what_takes_long_is_done_beside_the_event_loop(n_quotes: int, monkeypatch: pytest.MonkeyPatch):
    threads: list[int] = []
    put_back = json_body._put_back

    def noted(value: Any, strings: dict[str, str]) -> Any:
        threads.append(threading.get_ident())
        return put_back(value, strings)

    monkeypatch.setattr(json_body, "_put_back", noted)
    asyncio.run(read_json(json.dumps([LONG, *["a"] * (n_quotes // 2)]).encode()))
    assert (threads[0] == threading.get_ident()) == (n_quotes == 10)
