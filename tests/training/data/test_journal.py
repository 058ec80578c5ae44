"""The journal: what was added is found again, whatever byte a killed run stopped at."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.training.data.errors import DataError
from sglang_moss.training.data.journal import Entry, Journal
from sglang_moss.training.data.messages import FileStamp

pytestmark = pytest.mark.wide

N_VQ = 3
STAMP = FileStamp(10, 20)


def entry(i: int) -> Entry:
    if i % 5 == 4:
        return Entry(f"problem {i}", None if i % 2 else STAMP)
    codes = np.random.default_rng(i).integers(0, 1024, (1 + i % 7, N_VQ)).astype("<u2")
    return Entry(None, STAMP, bytes([i % 256]) * 32, i / 1000, codes)


def assert_same(found: Entry | None, expected: Entry) -> None:
    assert found is not None
    assert (found.problem, found.stamp, found.sha256) == (expected.problem, expected.stamp, expected.sha256)
    if expected.codes is not None:
        assert found.codes is not None
        assert found.codes.tolist() == expected.codes.tolist()
        assert found.clipped_share == expected.clipped_share


def fill(path: Path, n: int) -> list[int]:
    """Alternately a target and a reference; returns the file's size after each."""
    journal, sizes = Journal(path, N_VQ), []
    for i in range(n):
        if i % 2:
            journal.add_reference(f"voice {i}.wav", entry(i))
        else:
            journal.add_target(i * 40, i // 2 % 2, entry(i))
        sizes.append(path.stat().st_size)
    journal.close()
    return sizes


def assert_holds(journal: Journal, n: int, n_of: int) -> None:
    assert journal.n_found == n
    for i in range(n_of):
        found = journal.reference(f"voice {i}.wav") if i % 2 else journal.target(i * 40, i // 2 % 2)
        if i < n:
            assert_same(found, entry(i))
            if i % 2 and entry(i).codes is not None:
                assert_same(journal.voice(bytes([i]) * 32), entry(i))
        else:
            assert found is None


@settings(max_examples=60)
@given(n=st.integers(0, 20), cut=st.integers(0, 10_000), garbage=st.sampled_from([b"", b"\0" * 50]))
def test_a_torn_end_is_cut_off_and_the_journal_goes_on(tmp_path_factory, n, cut, garbage):
    path = tmp_path_factory.mktemp("journal") / "journal"
    sizes = fill(path, n)
    if sizes:
        with path.open("r+b") as file:
            file.truncate(min(cut, sizes[-1]))
    left = path.stat().st_size
    whole = sum(size <= left for size in sizes)
    at_end = [0, *sizes][whole]
    if garbage and left > at_end + 16:  # a length that reached the disk, and bytes that did not
        with path.open("r+b") as file:
            file.seek(left - 1)
            file.write(b"\xff")
            file.truncate(sizes[whole])
    journal = Journal(path, N_VQ)
    assert_holds(journal, whole, n)
    assert path.stat().st_size == at_end
    journal.add_target(77, 1, entry(3))
    assert_same(journal.target(77, 1), entry(3))
    journal.close()
    assert_same(Journal(path, N_VQ).target(77, 1), entry(3))


def test_the_last_word_on_a_clip_counts(tmp_path):
    journal = Journal(tmp_path / "journal", N_VQ)
    for i in (4, 3):
        journal.add_target(0, 0, entry(i))
    assert_same(journal.target(0, 0), entry(3))
    assert_same(Journal(tmp_path / "journal", N_VQ).target(0, 0), entry(3))


def test_one_voice_under_two_paths_is_stored_once(tmp_path):
    journal = Journal(tmp_path / "journal", N_VQ)
    journal.add_reference("a.wav", entry(3))
    journal.add_reference("b.wav", Entry(None, STAMP, entry(3).sha256))
    again = Journal(tmp_path / "journal", N_VQ)
    found = again.reference("b.wav")
    assert found is not None
    assert found.codes is None
    assert_same(again.voice(found.sha256), entry(3))


def test_damage_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "journal"
    sizes = fill(path, 4)
    data = bytearray(path.read_bytes())
    for place in (sizes[0], sizes[0] + 30):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"damaged at byte {sizes[0]}: begin again with --overwrite"):
            Journal(path, N_VQ)
