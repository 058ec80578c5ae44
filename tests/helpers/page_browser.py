"""A headless Chromium of this machine, and the page served over a stand-in for SGLang."""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fake_endpoints import listening
from fake_manager import FRAME_SAMPLES, STOP, FakeManager, event
from fastapi import FastAPI
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from sglang.srt.utils.auth import add_api_key_middleware
from sound_files import tone_file
from starlette.applications import Starlette
from starlette.routing import Mount

from sglang_moss.server.app import add_routes

FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
N_EVENTS = 8
NOISE = np.random.default_rng(0).integers(1_000, 9_000, N_EVENTS * 3 * FRAME_SAMPLES).astype(np.int16)

expect.set_options(timeout=60_000)


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
    script: Callable[[Any], Any],
    folder: Path,
    *,
    api_key: str | None = None,
    prefix: str = "",
    keeps_files: bool = False,
    **options: Any,
) -> Iterator[tuple[str, FakeManager]]:
    """The address of the page, which ends in a slash, and what stands in for SGLang behind it.

    Args:
        script: what is answered to a request, see `FakeManager`.
        folder: of the voices.
        prefix: what a proxy in front of the server would put before every path.
        keeps_files: whether browsers keep the page's files without asking again whether they have changed, which takes
            most of what opening the page costs.
    """
    manager = FakeManager(script, folder, **options)
    app = FastAPI()
    add_routes(app, manager.server_args, manager)
    if api_key is not None:
        add_api_key_middleware(app, api_key=api_key, admin_api_key=None)
    outer: Any = Starlette(routes=[Mount(prefix, app)]) if prefix else app
    with listening(_KeptFiles(outer) if keeps_files else outer) as url:
        yield f"{url}{prefix}/", manager


class _KeptFiles:
    """ASGI middleware: files under /page/ stay as they are for an hour."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def kept(message: Any) -> None:
            if message["type"] == "http.response.start" and scope["path"].startswith("/page/"):
                headers = [(name, value) for name, value in message["headers"] if name.lower() != b"cache-control"]
                message = {**message, "headers": [*headers, (b"cache-control", b"max-age=3600")]}
            await send(message)

        is_file = scope["type"] == "http" and scope["method"] == "GET"
        await self._app(scope, receive, kept if is_file else send)


def noise(_request: Any) -> Iterator[dict[str, Any]]:
    """A script for `FakeManager`: the samples of `NOISE`, 1.92 s."""
    *first, last = np.split(NOISE, N_EVENTS)
    yield from (event(pcm) for pcm in first)
    yield event(last, STOP)


def speak(page: Page) -> None:
    """Have the script spoken to its end."""
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Everything is here.", timeout=60_000)
    expect(page.locator("#heard")).to_contain_text("Take")  # it is kept


def downloaded(page: Page, label: str) -> Path:
    """The file that the player's download button gives, by the format's name in its menu."""
    page.locator("#download").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name=label, exact=True).click()
    return download.value.path()


def heard_samples(page: Page) -> np.ndarray:
    """[L] int16, what is in the player."""
    return soundfile.read(io.BytesIO(downloaded(page, "WAV").read_bytes()), dtype="int16")[0]


def write(page: Page, script: str) -> None:
    """Paste a script into the emptied editor."""
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Words of turn 1").fill(script)


def turns_of(page: Page) -> list[tuple[str, str]]:
    """Speaker and words of each turn in the editor."""
    items = page.get_by_role("list", name="Turns").get_by_role("listitem").all()
    return [(item.get_by_role("combobox").input_value(), item.get_by_role("textbox").input_value()) for item in items]


def open_panel(page: Page, name: str) -> Locator:
    """Bring a panel into sight."""
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("tabpanel", name=name)


def choose(page: Page, button: Locator, *entries: str) -> None:
    """Open a button's menu, and take an entry of it, and of the menu that this opens."""
    button.click()
    for entry in entries:
        page.get_by_role("menu").get_by_role("menuitem", name=entry).or_(
            page.get_by_role("menu").get_by_role("menuitemradio", name=entry)
        ).first.click()


def store_voice(address: str, name: str) -> None:
    """Store a voice that says who it is, behind the page's back."""
    form = {"name": name, "text": f"I am {name}."}
    files = {"audio": ("a.wav", tone_file(1.5))}
    assert httpx.post(f"{address}v1/audio/voices", data=form, files=files).status_code == 201
