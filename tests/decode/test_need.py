"""Who sits a decoding step out: those who can wait, in the order in which their audio is due, and nobody else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_requests import special_tokens_of, speech_request

from sglang_moss.decode.need import Need, need_of, sitting_out
from sglang_moss.request.speech import SpeechProgress

TOKENS = special_tokens_of(3, 9)
FRAME_S = 0.08

pressing, waits = (lambda due: Need(due, True)), (lambda due: Need(due, False))


def progress(n_rows: int, heard_until: float | None, began: float = 100.0, **sizes: int) -> SpeechProgress:
    made = speech_request(TOKENS, custom_params=sizes)
    made.began, made.heard_until = began, heard_until
    for _ in range(n_rows):
        made.rows.append(np.zeros(1 + TOKENS.n_vq, np.int32))
    return made


@pytest.mark.parametrize(
    ("heard_until", "chunk_frames", "is_pressing"),
    [
        (None, 32, True),  # arrivals first
        (101.9, 32, True),
        (102.0, 32, False),
        (102.0, 64, True),  # its next chunk takes longer
        (101.1, 1, False),
        (99.0, 32, True),  # it has run dry
    ],
)
def test_a_stream_is_pressing_until_it_is_ahead_by_more_than_its_next_chunk_takes(
    heard_until: float | None, chunk_frames: int, is_pressing: bool
):
    need = need_of(progress(5, heard_until, chunk_frames=chunk_frames), True, now=100.0, frame_seconds=FRAME_S)
    assert need == Need(100.0 if heard_until is None else heard_until, is_pressing)


@pytest.mark.parametrize("first_frames", [1, 32])
def test_a_first_chunk_that_has_left_is_nobodys_need(first_frames: int):
    sizes = {"chunk_frames": 8, "first_frames": first_frames}
    for heard_until, is_pressing in ((101.23, True), (101.25, False)):
        assert need_of(progress(5, heard_until, **sizes), True, 100.0, FRAME_S) == Need(heard_until, is_pressing)


def test_a_whole_answer_stands_back_and_never_falls_behind_real_time():
    made = progress(50, None, began=100.0)
    assert need_of(made, False, now=103.0, frame_seconds=FRAME_S) == waits(114.0)
    assert need_of(made, False, now=114.5, frame_seconds=FRAME_S) == pressing(114.0)


def test_nobody_sits_out_while_there_is_room_or_nobody_is_in_need():
    assert sitting_out([pressing(1.0), waits(2.0), waits(3.0)], most=3) == set()
    assert sitting_out([waits(1.0), waits(2.0), waits(3.0)], most=1) == set()
    assert sitting_out([None, waits(2.0), waits(3.0)], most=1) == set()


def test_those_in_need_run_however_many_they_are_and_the_others_fill_what_they_leave():
    needs = [waits(9.0), pressing(1.0), waits(5.0), None, waits(7.0)]
    assert sitting_out(needs, most=4) == {0}
    assert sitting_out(needs, most=3) == {0, 4}
    assert sitting_out(needs, most=1) == {0, 2, 4}


@given(
    st.lists(st.one_of(st.none(), st.builds(Need, st.floats(0, 10), st.booleans())), max_size=20), st.integers(1, 20)
)
def test_a_step_is_as_large_as_it_may_be_and_nobody_waits_for_a_later_one(needs: list[Need | None], most: int):
    out = sitting_out(needs, most)
    n_run = len(needs) - len(out)
    must = [i for i, need in enumerate(needs) if need is None or need.is_pressing]
    assert not out & set(must)
    if out:
        assert n_run == max(most, len(must))
        due = [need.due for i, need in enumerate(needs) if i not in out and need is not None and not need.is_pressing]
        assert max(due, default=0.0) <= min(need.due for i in out if (need := needs[i]) is not None)
