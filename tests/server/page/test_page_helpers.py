"""What the page can do where its server has helpers: voices from descriptions, drafted transcripts, scripts."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from fake_manager import FakeManager, event, frames_of
from page_browser import noise, served_page
from playwright.sync_api import BrowserContext, Page, expect
from waiting import wait_for

from .conftest import opened_page

pytestmark = pytest.mark.wide


@dataclass
class Helped:
    """A server with all helpers, and the one that makes its voices."""

    address: str
    maker: FakeManager


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helped]:
    folder = tmp_path_factory.mktemp("helped")
    with served_page(noise, folder / "maker", profile="voice") as (url, maker):
        helpers = {"design_url": url}
        with served_page(noise, folder / "voices", helpers=helpers) as (address, _):
            yield Helped(address, maker)


@pytest.fixture
def page(context: BrowserContext, helped: Helped) -> Iterator[Page]:
    with opened_page(context, helped.address) as opened:
        expect(opened.locator("#design-voice")).to_be_visible()
        yield opened
    helped.maker.script, helped.maker.pause_seconds = noise, 0.0
    helped.maker.requests.clear()
    helped.maker.closed.clear()


def accessible(page: Page) -> None:
    """As it is now, on a phone and on a desk."""
    page.set_viewport_size({"width": 320, "height": 640})
    page.get_by_role("tab", name="Voices").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.set_viewport_size({"width": 1280, "height": 800})
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_voice_is_designed_heard_and_stored(page: Page, helped: Helped):
    page.locator("summary", has_text="Design a voice").press("Enter")
    form = page.locator("#design-form")
    form.get_by_role("button", name="Make a voice").click()
    expect(form.get_by_role("alert")).to_have_text("Describe the voice first.")
    expect(form.get_by_label("Who speaks")).to_be_focused()
    form.get_by_label("Who speaks").fill("An old sailor")
    expect(form.get_by_role("alert")).to_be_hidden()
    form.get_by_role("button", name="Make a voice").click()
    expect(form.get_by_label("The voice that was made")).to_be_visible()
    page.wait_for_function("document.querySelector('#design-heard').currentTime > 0")  # it is heard at once
    expect(form.locator("#design-said")).to_contain_text("Good morning.")
    form.get_by_label("What it says").fill("Ahoy there!")
    form.get_by_role("button", name="Make another one").click()
    expect(form.locator("#design-said")).to_have_text("Ahoy there!")
    accessible(page)
    form.get_by_role("button", name="Store the voice").click()
    expect(form.get_by_role("alert")).to_have_text("The voice needs a name.")
    form.get_by_label("Name").fill("sailor")
    expect(form.get_by_label("Cast as")).to_have_value("1")
    form.get_by_role("button", name="Store the voice").click()
    expect(page.locator("#voices li")).to_contain_text(["Ahoy there!"])
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("sailor")
    expect(page.locator("#status")).to_have_text("sailor is stored, and speaks for S1.")
    expect(form).to_be_hidden()
    stored = httpx.get(f"{helped.address}v1/audio/voices/sailor").json()
    assert (stored["text"], round(stored["seconds"], 2)) == ("Ahoy there!", 1.92)
    texts = [request.text.removeprefix("${normalize_text}") for request in helped.maker.requests]
    assert (texts[0][:12], texts[1]) == ("Good morning", "Ahoy there!")


def test_a_voice_that_fails_is_said_so_and_another_is_made(page: Page, helped: Helped):
    page.locator("summary", has_text="Design a voice").click()
    form = page.locator("#design-form")
    form.get_by_label("Who speaks").fill("A child")
    helped.maker.script = lambda _: [event(frames_of(100), {"type": "length"})]
    form.get_by_role("button", name="Make a voice").click()
    expect(form.get_by_role("alert")).to_contain_text("did not come to the end of its text")
    helped.maker.script, helped.maker.pause_seconds = (lambda _: (event(frames_of(100)) for _ in range(10**6))), 0.05
    form.get_by_role("button", name="Make a voice").click()
    expect(form.get_by_role("status")).to_have_text("Making a voice…")
    form.get_by_role("button", name="Stop").click()
    expect(form.get_by_role("status")).to_have_text("")
    expect(form.get_by_role("alert")).to_be_hidden()
    wait_for(lambda: len(helped.maker.closed) == len(helped.maker.requests))  # there too
    expect(form.get_by_role("button", name="Make a voice")).to_be_visible()


def test_without_helpers_nothing_of_them_is_shown(context: BrowserContext, address: str):
    with opened_page(context, address) as page:
        with page.expect_response("**/audio/profile"):
            page.reload()
        expect(page.locator("[data-offers]").filter(visible=True)).to_have_count(0)
