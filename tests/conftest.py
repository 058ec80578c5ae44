"""Fixtures shared by the tests that run a model: one fused tiny checkpoint for all of them."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden_data import GOLDEN
from warm_start import start_zygote

from sglang_moss.fuse import fuse

_WIDE_MODULE = re.compile(r"^pytestmark = \[?pytest\.mark\.(wide|server)\b", re.MULTILINE)


@pytest.fixture(autouse=True, scope="session")
def signals_as_in_a_terminal() -> Iterator[None]:
    """A run in the background starts with some signals ignored, and so would every process that a test starts."""
    ignored = [s for s in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only units are asked for, modules that are wide as a whole are not even imported: most import SGLang."""
    units_only = {"not wide", "not server"} <= set(config.option.markexpr.split(" and "))
    if units_only and collection_path.suffix == ".py" and _WIDE_MODULE.search(collection_path.read_text("utf-8")):
        return True
    return None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Whoever wants a warm start finds it ready: importing goes on while other tests run."""
    modules = {item.module for item in session.items if isinstance(item, pytest.Function)}
    helpers = {getattr(value, "__module__", None) for module in modules for value in vars(module).values()}
    runs = not session.config.option.collectonly and not session.testsfailed
    if runs and helpers & {"fresh_process", "warm_engine", "warm_start"}:
        start_zygote()


@pytest.fixture(scope="session")
def fused_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "fused"
    fuse(GOLDEN / "ttsd", GOLDEN / "codec", path)
    return path
