"""A headless Chromium of this machine, and the page served over a stand-in for SGLang."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_endpoints import listening
from fake_manager import FakeManager
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sglang.srt.utils.auth import add_api_key_middleware
from starlette.applications import Starlette
from starlette.routing import Mount

from sglang_moss.server.app import add_routes

FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

expect.set_options(timeout=20_000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. While it is open, its thread has an event loop, so close it before tests that run their own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def served_page(
    script: Callable[[Any], Any], folder: Path, *, api_key: str | None = None, prefix: str = "", **options: Any
) -> Iterator[tuple[str, FakeManager]]:
    """The address of the page, which ends in a slash, and what stands in for SGLang behind it.

    Args:
        script: what is answered to a request, see `FakeManager`.
        folder: of the voices.
        prefix: what a proxy in front of the server would put before every path.
    """
    manager = FakeManager(script, folder, **options)
    app = FastAPI()
    add_routes(app, manager.server_args, manager)
    if api_key is not None:
        add_api_key_middleware(app, api_key=api_key, admin_api_key=None)
    outer: Any = Starlette(routes=[Mount(prefix, app)]) if prefix else app
    with listening(outer) as url:
        yield f"{url}{prefix}/", manager


def speak(page: Page) -> None:
    """Have the script spoken to its end."""
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Everything is here.", timeout=60_000)


def downloaded(page: Page, audio_format: str) -> Path:
    """The file that the download button gives."""
    page.get_by_label("Format").select_option(audio_format)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    return download.value.path()


def write(page: Page, script: str) -> None:
    """Paste a script into the emptied editor."""
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Words of turn 1").fill(script)
