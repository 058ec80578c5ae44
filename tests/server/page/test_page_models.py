"""The page of each model of the family: the form that it takes, what is sent of it, and words that fit."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fake_manager import FakeManager, event, frames_of
from page_browser import choose, noise, open_panel, served_page, speak, store_voice
from playwright.sync_api import BrowserContext, Page, expect
from sound_files import tone_file

from sglang_moss.request.profile import PROFILES

from .conftest import opened_page

pytestmark = pytest.mark.wide

FIELDS = {
    "Instruction": "instruction",
    "Who speaks": "instruction",
    "Language of the text": "language",
    "Length, seconds": "tokens",
    "Ambient sound": "ambient_sound",
    "Sound event": "sound_event",
    "Quality of the recording": "quality",
}
TEXT = {"tts": "Text to speak", "voice": "What the voice says", "sound": "What is to be heard"}
BUTTON = {"tts": "Speak", "voice": "Speak", "sound": "Make it"}


@dataclass
class Served:
    """A server of one model."""

    name: str
    address: str
    manager: FakeManager


@pytest.fixture(scope="module", params=["tts", "voice", "sound"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("voices")
    with served_page(noise, folder, keeps_files=True, profile=request.param) as (address, manager):
        yield Served(request.param, address, manager)


@pytest.fixture
def served(server: Served) -> Served:
    server.manager.requests.clear()
    server.manager.script = noise
    return server


@pytest.fixture
def page(context: BrowserContext, served: Served) -> Iterator[Page]:
    with opened_page(context, served.address) as opened:
        expect(opened.locator("#model-name")).to_have_text(PROFILES[served.name].model)
        yield opened


def make(page: Page, served: Served) -> Any:
    """Have it made to its end; the request that the server was sent."""
    n = len(served.manager.requests)
    page.get_by_role("button", name=BUTTON[served.name], exact=True).click()
    expect(page.locator("#status")).to_have_text("Everything is here.")
    assert len(served.manager.requests) == n + 1
    return served.manager.requests[n]


def test_the_form_has_what_the_model_takes_and_sends_it(page: Page, served: Served):
    profile = PROFILES[served.name]
    script = page.get_by_role("region", name=re.compile("^(Text|Voice and text|Sound)$"))
    expect(script.get_by_label(TEXT[served.name])).to_be_visible()
    shown = {label: field for label, field in FIELDS.items() if script.get_by_label(label, exact=True).is_visible()}
    told_by_the_text = {"text", "ambient_sound"} if served.name == "sound" else {"text"}
    assert set(shown.values()) == set(profile.fields) - told_by_the_text
    assert not page.locator(".turn, #add-turn, #as-text").filter(visible=True).count()
    expect(page.get_by_role("tab", name="Voices")).to_be_visible(visible=profile.max_references > 0)

    script.get_by_label(TEXT[served.name]).fill("One.")
    for label, field in shown.items():
        script.get_by_label(label, exact=True).fill("4" if field == "tokens" else f"some {field}")
    sent = make(page, served)
    told = {field: 50 if field == "tokens" else f"some {field}" for field in shown.values()}
    text = "One."
    if served.name == "sound":
        told["ambient_sound"], text = "One.", ""
    assert sent.text == "${normalize_text}" + text
    custom = sent.sampling_params["custom_params"]
    assert {name: custom[name] for name in custom if name in profile.fields} == told
    page.reload()  # all of it is still there
    for label, field in shown.items():
        expect(script.get_by_label(label, exact=True)).to_have_value("4" if field == "tokens" else f"some {field}")


def test_defaults_are_the_models(page: Page, served: Served):
    profile = PROFILES[served.name]
    settings = open_panel(page, "Settings")
    settings.get_by_text("More settings").click()
    for label, value in {
        "Temperature": profile.audio.temperature,
        "Top-p": profile.audio.top_p,
        "Top-k": profile.audio.top_k,
        "Repetition penalty": profile.repetition_penalty,
    }.items():
        placeholder = settings.get_by_label(label, exact=True).get_attribute("placeholder")
        assert float(placeholder or "nan") == value
    expect(settings.get_by_label("Mode")).to_be_visible(visible=profile.max_references > 0)
    expect(settings.get_by_label("Normalise the text")).to_be_visible(visible=served.name != "sound")
    expect(settings.get_by_text("Lively", exact=True)).to_be_hidden()


def test_examples_of_each_model_are_made(page: Page, served: Served):
    served.manager.script = lambda _: [event(frames_of(500), {"type": "stop"})]
    button = page.get_by_role("button", name="Examples")
    button.click()
    titles = page.get_by_role("menuitem").all_inner_texts()
    page.keyboard.press("Escape")
    assert any("English" in title for title in titles)
    assert any("中文" in title for title in titles)
    for title in titles:
        choose(page, button, title)
        make(page, served)
    asked = {(request.text, str(request.sampling_params["custom_params"])) for request in served.manager.requests}
    assert len(asked) == len(titles)
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name=BUTTON[served.name], exact=True).click()
    expect(page.locator("#problem-words")).to_contain_text("There is nothing to")
    assert len(served.manager.requests) == len(titles)


def test_a_take_is_kept_and_restored(page: Page, served: Served):
    text = page.get_by_label(TEXT[served.name])
    text.fill("One.\n\nTwo.")
    make(page, served)
    text.fill("Three.")
    open_panel(page, "Takes")
    choose(page, page.get_by_role("button", name="More for Take 1"), "Restore its script")
    expect(text).to_have_value("One.\n\nTwo.")
    page.keyboard.press("Control+z")
    expect(text).to_have_value("Three.")
    expect(page.locator("#update")).to_be_hidden()


def test_it_fits_and_is_accessible_in_both_languages(page: Page):
    for width, height in ((1280, 800), (390, 844), (320, 640)):
        page.set_viewport_size({"width": width, "height": height})
        for language in ("zh", "en"):
            page.locator("#language").select_option(language)
            assert page.evaluate("document.documentElement.scrollWidth") == width
        if width != 320:
            page.emulate_media(color_scheme="dark" if width == 390 else "light", reduced_motion="reduce")
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
    page.locator("#language").select_option("zh")
    page.get_by_role("button", name="清空").click()
    names = "MOSS-TTS|MOSS-VoiceGenerator|MOSS-SoundEffect|Studio|English|French|API|Enter|Shift|Ctrl|Space|Esc"
    assert not re.search("[A-Za-z]{2}", re.sub(names, "", page.inner_text("body")))


def test_the_form_is_there_before_the_server_answers_again(page: Page, served: Served):
    page.route("**/audio/profile", lambda route: route.abort())
    page.reload()
    expect(page.get_by_label(TEXT[served.name])).to_be_visible()
    expect(page.locator("#model-name")).to_have_text(PROFILES[served.name].model)


@pytest.mark.parametrize("server", ["voice"], indirect=True)
def test_a_voice_is_not_made_without_a_description(page: Page, served: Served):
    who = page.get_by_role("textbox", name="Who speaks")
    who.fill("")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(who).to_be_focused()
    expect(who).to_have_attribute("aria-invalid", "true")
    assert not served.manager.requests
    who.fill("a child")
    expect(page.locator("#problem")).to_be_hidden()
    open_panel(page, "Settings").get_by_role("button", name="Defaults").click()
    expect(who).to_have_value("a child")  # it is no setting, but what was asked for
    assert make(page, served).sampling_params["custom_params"]["instruction"] == "a child"


@pytest.mark.parametrize("server", ["tts"], indirect=True)
def test_a_text_is_spoken_in_a_stored_voice(page: Page, served: Served):
    store_voice(served.address, "alice")
    page.reload()
    choose(page, page.get_by_role("button", name="More for alice"), "this text")
    expect(page.get_by_label("Voice of the text")).to_have_value("alice")
    page.get_by_label("Length, seconds").fill("0")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_label("Length, seconds")).to_be_focused()
    page.get_by_label("Length, seconds").fill("2")
    assert make(page, served).audio_data == [tone_file(1.5)]


@pytest.mark.parametrize("server", ["sound"], indirect=True)
def test_what_was_written_for_another_model_is_kept(page: Page, served: Served):
    project = {"turns": [{"speaker": 1, "words": "Rain."}, {"speaker": 2, "words": "Wind."}], "cast": {"1": "alice"}}
    page.evaluate("project => localStorage.setItem('moss-ttsd', JSON.stringify({ project }))", project)
    page.reload()
    expect(page.get_by_label("What is to be heard")).to_have_value("Rain.\nWind.")
    assert make(page, served).sampling_params["custom_params"]["ambient_sound"] == "Rain.\nWind."


def test_a_server_that_tells_of_no_model_is_taken_for_one_of_dialogues(context: BrowserContext, tmp_path: Path):
    with served_page(noise, tmp_path) as (address, _):
        context.route("**/audio/profile", lambda route: route.fulfill(json={"name": 3}))
        try:
            with opened_page(context, address) as page:
                expect(page.get_by_label("Words of turn 1")).to_be_visible()
        finally:
            context.unroute("**/audio/profile")


def test_the_defaults_are_those_of_the_checkpoint(context: BrowserContext, tmp_path: Path):
    own = {"temperature": 0.7, "top_p": 0.97, "top_k": 20, "repetition_penalty": 1.0}
    with (
        served_page(noise, tmp_path, keeps_files=True, sampling=own) as (address, manager),
        opened_page(context, address) as page,
    ):
        panel = open_panel(page, "Settings")
        panel.get_by_text("More settings").click()
        labels = {"Temperature": "0.7", "Top-p": "0.97", "Top-k": "20", "Repetition penalty": "1"}
        for label, value in labels.items():
            expect(panel.get_by_label(label, exact=True)).to_have_attribute("placeholder", value)
        panel.get_by_label("Lively").check()  # around them
        expect(panel.get_by_label("Temperature")).to_have_value("0.83")
        expect(panel.get_by_label("Top-p")).to_have_value("1")
        expect(panel.get_by_label("Top-k")).to_have_value("32")
        panel.get_by_label("Usual").check()
        speak(page)
        assert not manager.requests[0].sampling_params.keys() & own.keys()
