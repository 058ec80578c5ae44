"""What the page can do where its server has helpers: voices from descriptions, drafted transcripts, scripts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from documents import pdf
from fake_manager import FakeManager, event, frames_of
from fake_speech_server import FakeServer, fake_speech_server, writes
from judged_speech import SPEECH
from page_browser import noise, served_page, turns_of
from playwright.sync_api import BrowserContext, Page, expect
from waiting import wait_for

from .conftest import opened_page

pytestmark = pytest.mark.wide


@dataclass
class Helped:
    """A server with all helpers, and the one that makes its voices."""

    address: str
    maker: FakeManager
    llm: FakeServer


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helped]:
    folder = tmp_path_factory.mktemp("helped")
    with served_page(noise, folder / "maker", profile="voice") as (url, maker), fake_speech_server() as llm:
        writer = {"script_llm_url": f"{llm.url}/v1", "script_llm_model": "writer"}
        helpers = {"design_url": url, **writer, "transcript_recogniser": "pocketsphinx"}
        with served_page(noise, folder / "voices", keeps_files=True, helpers=helpers) as (address, _):
            yield Helped(address, maker, llm)


@pytest.fixture
def page(context: BrowserContext, helped: Helped) -> Iterator[Page]:
    with opened_page(context, helped.address) as opened:
        expect(opened.locator("#design-voice")).to_be_visible()
        yield opened
    helped.maker.script, helped.maker.pause_seconds = noise, 0.0
    helped.maker.requests.clear()
    helped.maker.closed.clear()


def accessible(page: Page, panel: str | None = None) -> None:
    """As it is now, on a phone and on a desk.

    Args:
        panel: where it is; None: above all of them.
    """
    page.set_viewport_size({"width": 320, "height": 640})
    if panel is not None:
        page.get_by_role("tab", name=panel).click()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.set_viewport_size({"width": 1280, "height": 800})
    page.emulate_media(reduced_motion="reduce")  # a colour on its way to another is neither
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
    accessible(page, "Voices")
    form.get_by_role("button", name="Store the voice").click()
    expect(form.get_by_role("alert")).to_have_text("The voice needs a name.")
    form.get_by_label("Name").fill("sailor")
    expect(form.get_by_label("Cast as")).to_have_value("1")
    form.get_by_role("button", name="Store the voice").click()
    expect(page.locator("#voices li")).to_contain_text(["Ahoy there!"])
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("sailor")
    expect(page.locator("#status")).to_have_text("sailor is stored, and speaks for S1.")
    expect(form).to_be_hidden()
    stored = httpx.get(f"{helped.address}v1/audio/voices/sailor", timeout=60).json()
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


def test_a_transcript_is_drafted(page: Page):
    page.locator("summary", has_text="Add a voice").click()
    form = page.locator("#voice-form")
    draft = form.get_by_role("button", name="Draft a transcript")
    expect(draft).to_be_disabled()
    form.get_by_label("Clip of one speaker").set_input_files(SPEECH / "rms_reference.flac")
    expect(form.get_by_label("Language of the clip")).to_have_value("en")
    draft.press("Enter")
    expect(form.locator("#draft-status")).to_have_text("A draft: check every word.")
    words = form.get_by_label("What is said in it")
    expect(words).to_have_value(re.compile("fox", re.IGNORECASE))
    expect(words).to_be_focused()
    accessible(page, "Voices")
    page.route("**/page/transcript*", lambda route: route.fulfill(json={"text": ""}))
    draft.click()
    expect(form.locator("#draft-status")).to_have_text("Nothing was understood.")
    expect(words).to_have_value(re.compile("fox", re.IGNORECASE))  # as it was
    page.unroute("**/page/transcript*")
    clip = {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"no sound"}
    form.get_by_label("Clip of one speaker").set_input_files(clip)
    expect(form.locator("#draft-status")).to_have_text("")
    draft.click()
    expect(form.locator("#voice-error")).to_contain_text("cannot be read as audio")


def test_a_talk_about_a_document_is_written(page: Page, helped: Helped):
    writes(helped.llm, "[S1] Foxes are clever.\n[S2] Are they?")
    page.get_by_label("Name of speaker 1").fill("Ann")
    page.get_by_role("button", name="From a page or PDF").press("Enter")
    dialog = page.get_by_role("dialog", name="A talk about a page or a document")
    expect(dialog.get_by_label("Address of a web page or PDF")).to_be_focused()
    accessible(page)
    dialog.get_by_role("button", name="Write the script").click()
    expect(dialog.get_by_role("alert")).to_have_text("Give an address or choose a file.")
    dialog.get_by_label("Address of a web page or PDF").fill("http://127.0.0.1/foxes")
    dialog.get_by_label("Speakers").fill("9")
    dialog.get_by_role("button", name="Write the script").click()
    expect(dialog.get_by_role("alert")).to_have_text("A setting is out of range.")
    dialog.get_by_label("Speakers").fill("3")
    dialog.get_by_role("button", name="Write the script").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The URL leads to a private or local address")
    dialog.get_by_label("Address of a web page or PDF").fill("")
    document = {"name": "a.pdf", "mimeType": "application/pdf", "buffer": pdf("Foxes are clever.")}
    dialog.get_by_label("or a file").set_input_files(document)
    dialog.get_by_role("button", name="Write the script").click()
    expect(dialog).to_be_hidden()
    wait_for(lambda: turns_of(page) == [("1", "Foxes are clever."), ("2", "Are they?")])
    expect(page.get_by_label("Name of speaker 1")).to_have_value("")
    assert "of 3 speakers" in helped.llm.bodies[-1]["messages"][0]["content"]
    expect(page.locator("#toast")).to_contain_text("The script is written: read it through.")
    page.locator("#toast").get_by_role("button", name="Undo").click()
    expect(page.get_by_label("Words of turn 1")).to_have_value("Did you hear that?")


def test_a_script_that_is_not_waited_for_changes_nothing(page: Page, helped: Helped):
    writes(helped.llm, "[S1] Too late.")
    helped.llm.waits = True
    helped.llm.asked.clear()
    page.get_by_role("button", name="From a page or PDF").click()
    dialog = page.get_by_role("dialog", name="A talk about a page or a document")
    document = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"Foxes."}
    dialog.get_by_label("or a file").set_input_files(document)
    dialog.get_by_role("button", name="Write the script").click()
    expect(dialog.get_by_role("status")).to_have_text("Reading and writing…")
    wait_for(helped.llm.asked.is_set)
    dialog.get_by_role("button", name="Cancel").click()
    helped.llm.waits = False
    helped.llm.release.set()
    expect(dialog).to_be_hidden()
    expect(page.get_by_label("Words of turn 1")).to_have_value("Did you hear that?")
    page.get_by_role("button", name="From a page or PDF").click()
    expect(dialog.get_by_role("status")).to_have_text("")
    expect(dialog.get_by_role("button", name="Write the script")).to_be_enabled()


def test_without_helpers_nothing_of_them_is_shown(context: BrowserContext, address: str):
    with opened_page(context, address) as page:
        with page.expect_response("**/audio/profile"):
            page.reload()
        expect(page.locator("[data-offers]").filter(visible=True)).to_have_count(0)
