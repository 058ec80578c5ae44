"""One browser and one server for all tests of the page; in each it is freshly opened, with empty storage.

The browser keeps the page's files, which takes most of what opening it costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from fake_manager import FakeManager
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="package")
def browser() -> "Iterator[Browser]":
    from page_browser import chromium  # with SGLang, which is not imported where only units are asked for

    with chromium() as opened:
        yield opened


@pytest.fixture(scope="package")
def context(browser: "Browser") -> "Iterator[BrowserContext]":
    from waiting import PATIENCE_S

    with browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 800}) as opened:
        opened.set_default_timeout(1000 * PATIENCE_S)
        yield opened


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[str, FakeManager]]":
    from page_browser import noise, served_page

    with served_page(noise, tmp_path_factory.mktemp("voices"), keeps_files=True) as found:
        yield found


@pytest.fixture(scope="package")
def server(served: "tuple[str, FakeManager]") -> Iterator[httpx.Client]:
    from waiting import PATIENCE_S

    with httpx.Client(base_url=served[0], timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def manager(served: "tuple[str, FakeManager]") -> "FakeManager":
    return served[1]


@pytest.fixture
def address(served: "tuple[str, FakeManager]", server: httpx.Client) -> "Iterator[str]":
    """Where the page is. Its server is as if it had just started; no request outlives the page that has sent it."""
    from page_browser import noise
    from waiting import wait_for

    address, manager = served
    yield address
    wait_for(lambda: len(manager.closed) == len(manager.requests))
    manager.requests.clear()
    manager.closed.clear()
    manager.script, manager.pause_seconds = noise, 0.0
    for voice in server.get("v1/audio/voices").json()["data"]:
        assert server.delete(f"v1/audio/voices/{voice['name']}").status_code == 200


@pytest.fixture
def page(context: "BrowserContext", address: str) -> "Iterator[Page]":
    """The page, freshly opened."""
    with opened_page(context, address) as opened:
        yield opened


@contextmanager
def opened_page(context: "BrowserContext", address: str) -> "Iterator[Page]":
    """A page with empty storage. It has asked nobody but its own server, and nothing in it has failed."""
    opened = context.new_page()
    failures: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    yield opened
    storage = {"origin": address.rstrip("/"), "storageTypes": "local_storage,indexeddb"}
    opened.goto("about:blank")  # so that it stores nothing more
    context.new_cdp_session(opened).send("Storage.clearDataForOrigin", storage)
    opened.close()
    assert not failures
    assert all(url.startswith((address, "blob:", "about:")) for url in asked)
