"""The array that one thread appends to and another one reads."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.request.speech import GrowingArray


@given(pieces=st.lists(st.integers(0, 200), max_size=8), width=st.integers(1, 17))
def test_it_holds_what_was_added_in_order(pieces, width):
    expected = np.arange(sum(pieces) * width).reshape(-1, width)
    array, end = GrowingArray(width), 0
    for n in pieces:
        if n == 1:
            array.append(expected[end])
        else:
            array.extend(expected[end : end + n])
        end += n
        assert len(array) == end
    np.testing.assert_array_equal(array[:], expected)
    np.testing.assert_array_equal(array[1:-1], expected[1:-1])
    if end:
        np.testing.assert_array_equal(array[-1], expected[-1])
    with pytest.raises(IndexError):
        array[end]


def test_a_view_stays_as_it_was_while_the_array_grows():
    array = GrowingArray(3)
    array.extend(np.ones((10, 3)))
    view = array[:]
    for _ in range(1_000):
        array.append(np.zeros(3))
    assert len(view) == 10
    assert (view == 1).all()


def test_memory_moves_a_bounded_number_of_times_a_row(monkeypatch):
    n_moved = []
    stock = GrowingArray._make_room
    monkeypatch.setattr(GrowingArray, "_make_room", lambda array, n: (n_moved.append(len(array)), stock(array, n)))
    array = GrowingArray(2)
    for i in range(45_000):
        array.append(np.array([i, i]))
    assert sum(n_moved) < 2 * 45_000


def test_a_reader_sees_whole_rows_only():
    array, n_rows = GrowingArray(16), 20_000

    def write() -> None:
        for i in range(n_rows):
            array.append(np.full(16, i))

    writer = threading.Thread(target=write)
    writer.start()
    while len(array) < n_rows:
        n = len(array)
        seen = array[:]
        assert len(seen) >= n
        np.testing.assert_array_equal(seen, np.broadcast_to(np.arange(len(seen))[:, None], seen.shape))
    writer.join()
