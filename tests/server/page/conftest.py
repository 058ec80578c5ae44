"""One browser for all tests of a module, and a page that is freshly opened in each."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fake_manager import FakeManager
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from page_browser import chromium  # with SGLang, which is not imported where only units are asked for

    with chromium() as opened:
        yield opened


@pytest.fixture
def served(tmp_path: Path) -> "Iterator[tuple[str, FakeManager]]":
    from page_browser import noise, served_page

    with served_page(noise, tmp_path) as found:
        yield found


@pytest.fixture
def address(served: "tuple[str, FakeManager]") -> str:
    return served[0]


@pytest.fixture
def manager(served: "tuple[str, FakeManager]") -> "FakeManager":
    return served[1]


@pytest.fixture
def page(browser: "Browser", address: str) -> "Iterator[Page]":
    """The page, freshly opened. It has asked nobody but its own server, and nothing in it has failed."""
    with browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 800}) as context:
        opened = context.new_page()
        failures: list[str] = []
        asked: list[str] = []
        opened.on("pageerror", lambda error: failures.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(address)
        yield opened
        assert not failures
        assert all(url.startswith((address, "blob:")) for url in asked)
