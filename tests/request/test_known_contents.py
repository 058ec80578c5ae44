"""Contents that came before: found where all of them is equal, within bounds."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.request.known_contents import KnownContents

CLIP = "A" * 5000
SIZE = sys.getsizeof(CLIP) + sys.getsizeof(b"1")


def changed(at: int) -> str:
    return CLIP[:at] + "B" + CLIP[at + 1 :]


@given(contents=st.lists(st.one_of(st.text("ab", max_size=40), st.binary(max_size=3)), max_size=20))
def test_what_is_found_was_remembered_of_that_very_content(contents: list[str | bytes]):
    known, digests = KnownContents[bytes](10_000), {}
    for i, content in enumerate(contents):
        digests[type(content), content] = digest = str(i).encode()
        known.remember(content, digest)
        assert known.value_of(content) == digest
    for (_, content), digest in digests.items():
        assert known.value_of(content) in (digest, None)


def test_one_character_makes_another_content():
    known = KnownContents[bytes](10 * SIZE)
    known.remember(CLIP, b"1")
    assert known.value_of("A" * 5000) == b"1"
    assert {known.value_of(changed(at)) for at in range(len(CLIP))} == {None}
    assert known.value_of(CLIP.encode()) is None
    assert known.value_of(["A" * 5000]) is None


def test_contents_that_look_alike_take_each_others_place():
    known = KnownContents[bytes](10 * SIZE)
    for i, at in enumerate((100, 101, 102)):
        known.remember(changed(at), str(i).encode())
    assert [known.value_of(changed(at)) for at in (100, 101, 102)] == [None, None, b"2"]
    assert known._n_bytes == SIZE


def test_the_least_recently_used_leave_first_and_the_largest_are_not_kept():
    known = KnownContents[bytes](5 * SIZE)
    clips = [str(i) + CLIP[1:] for i in range(6)]
    for clip in clips[:5]:
        known.remember(clip, clip[:1].encode())
    assert known.value_of(clips[0]) == b"0"
    known.remember(clips[5], b"5")
    assert [known.value_of(clip) for clip in clips] == [b"0", None, b"2", b"3", b"4", b"5"]
    known.remember(2 * CLIP, b"long")
    assert known.value_of(2 * CLIP) is None
    assert known._n_bytes == 5 * SIZE


@given(before=st.text("ab", max_size=9), content=st.text("ab", max_size=40), after=st.text("ab", max_size=9))
def test_a_part_is_found_as_the_whole_is(before: str, content: str, after: str):
    known = KnownContents[bytes](10_000)
    known.remember(content, b"1")
    known.remember(content.encode(), b"2")
    text, start, end = before + content + after, len(before), len(before) + len(content)
    assert (known.value_of(text, start, end), known.value_of(text.encode(), start, end)) == (b"1", b"2")
    for other_start, other_end in ((start, end + 1), (start + 1, end), (start + 1, end + 1)):
        if other_start <= other_end <= len(text) and text[other_start:other_end] != content:
            assert known.value_of(text, other_start, other_end) is None
