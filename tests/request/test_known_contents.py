"""Contents that came before: found where all of them is equal, within bounds."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.request.known_contents import KnownContents

CLIP = "A" * 5000
SIZE = sys.getsizeof(CLIP)


def changed(at: int) -> str:
    return CLIP[:at] + "B" + CLIP[at + 1 :]


@given(contents=st.lists(st.one_of(st.text("ab", max_size=40), st.binary(max_size=3)), max_size=20))
def test_what_is_found_was_remembered_of_that_very_content(contents: list[str | bytes]):
    known, digests = KnownContents(10_000), {}
    for i, content in enumerate(contents):
        digests[type(content), content] = digest = str(i).encode()
        known.remember(content, digest)
        assert known.digest_of(content) == digest
    for (_, content), digest in digests.items():
        assert known.digest_of(content) in (digest, None)


def test_one_character_makes_another_content():
    known = KnownContents(10 * SIZE)
    known.remember(CLIP, b"1")
    assert known.digest_of("A" * 5000) == b"1"
    assert {known.digest_of(changed(at)) for at in range(len(CLIP))} == {None}
    assert known.digest_of(CLIP.encode()) is None
    assert known.digest_of(["A" * 5000]) is None


def test_contents_that_look_alike_take_each_others_place():
    known = KnownContents(10 * SIZE)
    for i, at in enumerate((100, 101, 102)):
        known.remember(changed(at), str(i).encode())
    assert [known.digest_of(changed(at)) for at in (100, 101, 102)] == [None, None, b"2"]
    assert known._n_bytes == SIZE


def test_the_least_recently_used_leave_first_and_the_largest_are_not_kept():
    known = KnownContents(5 * SIZE)
    clips = [str(i) + CLIP[1:] for i in range(6)]
    for clip in clips[:5]:
        known.remember(clip, clip[:1].encode())
    assert known.digest_of(clips[0]) == b"0"
    known.remember(clips[5], b"5")
    assert [known.digest_of(clip) for clip in clips] == [b"0", None, b"2", b"3", b"4", b"5"]
    known.remember(2 * CLIP, b"long")
    assert known.digest_of(2 * CLIP) is None
    assert known._n_bytes == 5 * SIZE
