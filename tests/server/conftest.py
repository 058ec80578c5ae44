"""A server of `raw_http.Application`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # what follows imports SGLang, which units do without
    from raw_http import Application


@pytest.fixture
def app() -> "Application":
    from raw_http import Application

    return Application()


@pytest.fixture
def url(app: "Application") -> Iterator[str]:
    from fake_endpoints import listening

    from sglang_moss.server import http_protocol

    http_protocol.install()
    with listening(app) as served:
        yield served
        app.go.set()
