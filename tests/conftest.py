"""Fixtures shared by the tests that run a model: one fused tiny checkpoint for all of them."""

from pathlib import Path

import pytest
from golden_data import GOLDEN

from sglang_moss.fuse import fuse


@pytest.fixture(scope="session")
def fused_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "fused"
    fuse(GOLDEN / "ttsd", GOLDEN / "codec", path)
    return path
