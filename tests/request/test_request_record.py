"""What is kept of a request's error holds nothing of the request."""

import gc
import weakref

import pytest

from sglang_moss.errors import BadReference, BadSetting, MossError, ServerBusy
from sglang_moss.request.record import RequestRecord


class Body:
    """In the place of what a request brought."""


@pytest.mark.parametrize(
    "error",
    [
        BadReference.at(1, "the clip is silent", "clip_silent"),
        BadSetting("a sentence"),
        ServerBusy("too much to do", retry_after=3.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_problem_is_kept_without_the_frames_that_it_came_through(error: MossError):
    record = RequestRecord()

    def fails() -> "weakref.ref[Body]":
        body = Body()
        try:
            raise error
        except MossError as caught:
            record.keep_problem(caught)
            caught.__traceback__ = None  # the parameter of this test lives on
        return weakref.ref(body)

    gc.disable()
    try:
        assert fails()() is None
    finally:
        gc.enable()
    assert type(record.problem) is type(error)
    assert str(record.problem) == str(error)
    assert vars(record.problem) == vars(error)
    assert record.problem.status == error.status
