"""What serving our routes changes of the HTTP process."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_manager import FakeManager
from fastapi import FastAPI
from fastapi.responses import ORJSONResponse

from sglang_moss.server.app import add_routes

pytestmark = pytest.mark.wide


@pytest.fixture
def interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("interval")
def test_no_thread_of_the_http_process_has_the_interpreter_for_long(tmp_path: Path):
    manager = FakeManager(lambda _request: [], tmp_path)
    add_routes(FastAPI(), manager.server_args, manager)
    assert sys.getswitchinterval() == pytest.approx(0.0005)


def test_a_refusal_of_sglangs_leaves_no_warning_in_the_log(tmp_path: Path):
    manager = FakeManager(lambda _request: [], tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ORJSONResponse({"error": "before"})
        assert len(caught) == 1  # or there is nothing to leave out any more
        add_routes(FastAPI(), manager.server_args, manager)
        ORJSONResponse({"error": "after"})
        assert [warning for warning in caught[1:] if "ORJSONResponse" in str(warning.message)] == []
