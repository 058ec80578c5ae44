"""Fixtures shared by the tests that run a model: one fused tiny checkpoint for all of them."""

import gc
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_data import GOLDEN
from hypothesis import HealthCheck, settings
from warm_start import ZYGOTE, start_zygote
from xdist.scheduler import LoadGroupScheduling

from sglang_moss.fuse import fuse

# No example fails for what else the machine does: Hypothesis allows 200 ms for one, and not much more to draw it.
settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

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


class ServersOnOneWorker(LoadGroupScheduling):
    """Tests of a file stay together, and so do all that start a server, which then follow each other."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadGroupScheduling | None:
    return ServersOnOneWorker(config, log) if config.option.dist == "loadgroup" else None


def pytest_configure(config: pytest.Config) -> None:
    """Workers share one zygote, which imports while they do."""
    if config.option.dist != "no" and not _units_only(config) and not config.option.collectonly:
        os.environ[ZYGOTE] = start_zygote()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only units are asked for, modules that are wide as a whole are not even imported: most import SGLang."""
    is_module = collection_path.suffix == ".py"
    if is_module and _units_only(config) and _WIDE_MODULE.search(collection_path.read_text("utf-8")):
        return True
    return None


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For workers: one group of all servers, and first what takes long, so that they end at the same time."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker("server"):
            item.add_marker(pytest.mark.xdist_group("server"))
    items.sort(key=_turn)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """One thread: on a busy machine two cost small tensors many times their arithmetic.

    CTranslate2 sets a number of its own for all that is loaded, torch too, and would for all tests that follow.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _turn(item: pytest.Item) -> int:
    marks = ("server", "slow", "wide")
    return next((turn for turn, mark in enumerate(marks) if item.get_closest_marker(mark)), len(marks))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Whoever wants a warm start finds it ready: importing goes on while other tests run."""
    modules = {item.module for item in session.items if isinstance(item, pytest.Function)}
    helpers = {getattr(value, "__module__", None) for module in modules for value in vars(module).values()}
    runs = not session.config.option.collectonly and not session.testsfailed
    if runs and helpers & {"fresh_process", "warm_engine", "warm_start"}:
        start_zygote()
    gc.freeze()  # what has been imported need not be searched for garbage again and again


def _units_only(config: pytest.Config) -> bool:
    return {"not wide", "not server"} <= set(config.option.markexpr.split(" and "))


@pytest.fixture(scope="session")
def fused_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "fused"
    fuse(GOLDEN / "ttsd", GOLDEN / "codec", path)
    return path
