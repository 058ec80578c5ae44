"""The page in a real browser: what is heard, kept, refused and shown."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from fake_manager import FRAME_SAMPLES, SAMPLE_RATE, STOP, FakeManager, event, frames_of
from page_browser import chromium, downloaded, served_page, speak, write
from playwright.sync_api import Browser, Page, expect
from sound_files import decoded, tone_file
from waiting import wait_for

from sglang_moss.errors import BadText, MossError

pytestmark = pytest.mark.wide

N_EVENTS = 8
NOISE = np.random.default_rng(0).integers(1_000, 9_000, N_EVENTS * 3 * FRAME_SAMPLES).astype(np.int16)
# Leave to use the microphone takes a while; its tracks are in window.tracks.
SLOW_MICROPHONE = """() => {
    window.tracks = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((resolve) => setTimeout(resolve, 500));
        const stream = await ask(wanted);
        tracks.push(...stream.getTracks());
        return stream;
    };
}"""
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"

# Samples on their way to the loudspeaker, in window.heard; the page's context is made early so that none is missed.
TAP = """async () => {
    const context = new AudioContext({ sampleRate: 24000 });
    const source = `registerProcessor("tap", class extends AudioWorkletProcessor {
        process([input]) { if (input[0]) this.port.postMessage(input[0].slice()); return true; }
    })`;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(context, "tap");
    window.heard = [];
    tap.port.onmessage = ({ data }) => window.heard.push(...data);
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (...to) {
        connect.call(this, tap);
        return connect.apply(this, to);
    };
    window.AudioContext = function () { return context; };
}"""


def noise(_request: Any) -> Iterator[dict[str, Any]]:
    *first, last = np.split(NOISE, N_EVENTS)
    yield from (event(pcm) for pcm in first)
    yield event(last, STOP)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, FakeManager]]:
    with served_page(noise, tmp_path) as found:
        yield found


@pytest.fixture
def manager(served: tuple[str, FakeManager]) -> FakeManager:
    return served[1]


@pytest.fixture
def page(browser: Browser, served: tuple[str, FakeManager]) -> Iterator[Page]:
    """The page, freshly opened. It has asked nobody but its own server, and nothing in it has failed."""
    with browser.new_context(bypass_csp=True) as context:
        opened = context.new_page()
        failures: list[str] = []
        asked: list[str] = []
        opened.on("pageerror", lambda error: failures.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(served[0])
        yield opened
        assert not failures
        assert all(address.startswith((served[0], "blob:")) for address in asked)


def samples_of(file: Path) -> np.ndarray:
    return soundfile.read(io.BytesIO(file.read_bytes()), dtype="int16")[0]


def store_voice(address: str, name: str) -> None:
    form = {"name": name, "text": f"I am {name}."}
    files = {"audio": ("a.wav", tone_file(1.5))}
    assert httpx.post(f"{address}v1/audio/voices", data=form, files=files).status_code == 201


def open_all(page: Page) -> None:
    for title in ("Add a voice", "Settings"):
        page.locator("summary", has_text=title).click()


def turns_of(page: Page) -> list[tuple[str, str]]:
    items = page.get_by_role("list", name="Turns").get_by_role("listitem").all()
    return [(item.get_by_role("combobox").input_value(), item.get_by_role("textbox").input_value()) for item in items]


@pytest.mark.parametrize("pause_seconds", [0.0, 0.4])  # 0.4: the samples run out before more come
def test_every_sample_is_heard_once_and_in_order(page: Page, manager: FakeManager, pause_seconds: float):
    manager.pause_seconds = pause_seconds
    page.evaluate(TAP)
    speak(page)
    expect(page.get_by_role("button", name="Play")).to_be_enabled()
    heard = np.array(page.evaluate("heard"))
    played = np.flatnonzero(heard)
    if not pause_seconds:
        assert played[-1] - played[0] == len(NOISE) - 1  # without a gap
    assert np.array_equal(heard[played], NOISE / 32768)


def test_the_file_has_the_servers_samples(page: Page, manager: FakeManager):
    speak(page)
    assert np.array_equal(samples_of(downloaded(page, "wav")), NOISE)
    assert len(manager.requests) == 1
    assert np.array_equal(decoded("flac", downloaded(page, "flac").read_bytes(), SAMPLE_RATE), NOISE)
    first, again = manager.requests
    assert (again.text, again.sampling_params) == (first.text, first.sampling_params)
    assert str(first.sampling_params["sampling_seed"]) == page.locator("#seed").text_content()


def test_figures_say_what_came(page: Page):
    speak(page)
    expect(page.locator("#length")).to_have_text(f"{len(NOISE) / SAMPLE_RATE:.2f} s")
    expect(page.locator("#first-sound")).to_contain_text("ms")
    expect(page.locator("#rtf")).to_contain_text("×")


def test_the_waveform_grows_and_is_a_slider(page: Page):
    blank = page.locator("#waveform").screenshot()
    speak(page)
    slider = page.get_by_role("slider", name="Position")
    assert slider.screenshot() != blank
    page.get_by_role("button", name="Pause").or_(page.get_by_role("button", name="Play")).click()
    page.get_by_role("button", name="Play").wait_for()
    box = slider.bounding_box()
    assert box
    slider.click(position={"x": box["width"] / 2, "y": 10})
    assert float(slider.get_attribute("aria-valuenow") or 0) == pytest.approx(len(NOISE) / SAMPLE_RATE / 2, abs=0.1)
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuenow", "0.0")
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuenow", f"{len(NOISE) / SAMPLE_RATE:.1f}")


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_stop_ends_the_generation_and_keeps_what_came(page: Page, manager: FakeManager, way: str):
    manager.script = lambda _: (event(frames_of(1_000 + i % 1_000)) for i in itertools.count())
    manager.pause_seconds = 0.05
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#length")).to_contain_text("s")
    assert not manager.closed
    if way == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    wait_for(lambda: len(manager.closed) == 1, seconds=3)
    expect(page.locator("#status")).to_have_text("Stopped.")
    came = samples_of(downloaded(page, "wav"))
    assert len(came) >= 3 * FRAME_SAMPLES
    assert np.array_equal(came, np.concatenate([frames_of(1_000 + i) for i in range(len(came) // FRAME_SAMPLES // 3)]))


def test_a_refusal_is_shown_and_the_last_speech_kept(page: Page, manager: FakeManager):
    speak(page)
    manager.script = lambda _: [BadText("text: no such words")]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("text: no such words")
    assert np.array_equal(samples_of(downloaded(page, "wav")), NOISE)


def test_what_a_refused_request_cut_off_still_plays_to_its_end(page: Page, served: tuple[str, FakeManager]):
    address, manager = served
    store_voice(address, "alice")
    page.reload()
    manager.script = lambda _: (event(frames_of(500)) for _ in itertools.count())
    manager.pause_seconds = 0.05
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#length")).to_contain_text("s")
    manager.script = lambda _: [BadText("text: no such words")]
    page.get_by_role("button", name="Preview alice").click()
    expect(page.get_by_role("alert")).to_have_text("text: no such words")
    page.get_by_role("button", name="Play").click()
    page.get_by_role("slider", name="Position").press("End")
    expect(page.locator("#pause")).to_have_text("Play")


def test_a_failure_in_the_middle_is_shown_and_its_beginning_kept(page: Page, manager: FakeManager):
    manager.script = lambda _: [event(frames_of(500)), MossError("the codec failed")]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("the codec failed")
    assert np.array_equal(samples_of(downloaded(page, "wav")), frames_of(500))


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_come_again(page: Page, status: int):
    body = json.dumps({"error": {"message": "all places are taken"}})
    page.route("**/audio/speech", lambda route: route.fulfill(status=status, body=body, headers={"Retry-After": "7"}))
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("all places are taken (try again in 7 s)")


def test_a_server_that_is_gone_is_said_to_be(page: Page):
    page.route("**/audio/speech", lambda route: route.abort())
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_settings_are_sent_as_written_and_checked(page: Page, manager: FakeManager):
    open_all(page)
    settings = {"Temperature": "0.5", "Top-p": "0.8", "Top-k": "20", "Repetition penalty": "1.3", "Seed": "7"}
    for label, value in settings.items():
        page.get_by_label(label, exact=label == "Seed").fill(value)
    page.get_by_label("Instruction").fill("Whisper")
    page.get_by_label("At most, seconds").fill("4")
    page.get_by_label("Normalise").uncheck()
    speak(page)
    request = manager.requests[0]
    assert request.text.startswith("${instruction:Whisper}[S1] Did you hear that?")
    expected = {"temperature": 0.5, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.3, "sampling_seed": 7}
    assert request.sampling_params.items() >= (expected | {"max_new_tokens": 50}).items()
    page.get_by_label("Top-p").fill("3")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("A setting is out of range.")
    expect(page.get_by_label("Top-p")).to_be_focused()
    page.get_by_label("Top-p").fill("")
    page.get_by_label("Instruction").fill("} out")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("a brace would end it")
    expect(page.get_by_label("Instruction")).to_be_focused()
    assert len(manager.requests) == 1


def test_a_script_is_pasted_with_its_tags_and_edited_as_text(page: Page):
    write(page, "[S1] One. [S2] Two,\ntoo. [S5] Five.")
    assert turns_of(page) == [("1", "One."), ("2", "Two,\ntoo."), ("5", "Five.")]
    colours = page.locator(".speaker").evaluate_all("all => all.map(each => getComputedStyle(each).color)")
    assert len(set(colours)) == 3
    expect(page.locator("#script-size")).to_have_text("3 turns · 18 characters · about 0:02")
    page.get_by_role("button", name="Edit as text").click()
    text = page.get_by_label("Script with speaker tags")
    expect(text).to_have_value("[S1] One.\n[S2] Two,\ntoo.\n[S5] Five.")
    text.fill("Nobody's. [S3] Three.")
    page.get_by_role("button", name="Edit as text").click()
    assert turns_of(page) == [("1", "Nobody's."), ("3", "Three.")]


def test_a_dialogue_is_written_and_spoken_by_keyboard_alone(page: Page, manager: FakeManager):
    page.get_by_role("button", name="Clear").press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        if page.evaluate("document.activeElement.className") == "words":
            break
    keys = page.keyboard
    keys.type("One.")
    keys.press("Enter")
    keys.type("Two.")
    keys.press("Enter")
    keys.press("Alt+3")
    keys.type("Three.")
    keys.press("Shift+Enter")
    keys.type("Four.")
    assert turns_of(page) == [("1", "One."), ("2", "Two."), ("3", "Three.\nFour.")]
    keys.press("Alt+ArrowUp")
    expect(page.locator("#status")).to_have_text("Now turn 2 of 3.")
    keys.press("Enter")
    keys.press("Backspace")
    assert turns_of(page) == [("1", "One."), ("3", "Three.\nFour."), ("2", "Two.")]
    keys.press("Control+Enter")
    expect(page.locator("#status")).to_have_text("Everything is here.")
    assert manager.requests[0].text.endswith("[S1] One.\n[S3] Three.\nFour.\n[S2] Two.")


def test_every_control_is_reached_by_tab(page: Page, served: tuple[str, FakeManager]):
    store_voice(served[0], "alice")
    page.reload()
    expect(page.get_by_role("button", name="Preview alice")).to_be_visible()
    open_all(page)
    speak(page)
    wanted = page.evaluate("""() => {
        window.controls = [...document.querySelectorAll("a, button, input, select, textarea, summary, canvas")];
        window.controls = controls.filter((each) => each.checkVisibility() && !each.disabled);
        document.activeElement.blur();
        return controls.length;
    }""")
    reached = set()
    for _ in range(2 * wanted):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("controls.indexOf(document.activeElement)"))
    assert reached - {-1} == set(range(wanted))


def test_a_reload_keeps_script_settings_and_voices(page: Page, served: tuple[str, FakeManager]):
    store_voice(served[0], "alice")
    page.reload()
    write(page, "[S2] Kept. [S1] Also.")
    page.get_by_label("Voice of speaker 1").select_option("alice")
    page.locator("summary", has_text="Settings").click()
    page.get_by_label("Top-k").fill("12")
    page.get_by_label("Normalise").uncheck()
    page.reload()
    assert turns_of(page) == [("2", "Kept."), ("1", "Also.")]
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("alice")
    expect(page.get_by_label("Top-k")).to_have_value("12")
    expect(page.get_by_label("Normalise")).not_to_be_checked()


@pytest.mark.parametrize("saved", ["{", "3", "null", '{"turns": [{"speaker": 9}], "settings": 4, "voices": [1]}'])
def test_what_others_left_in_the_browser_does_no_harm(page: Page, saved: str):
    page.evaluate("saved => localStorage.setItem('moss-ttsd', saved)", saved)
    page.reload()
    assert len(turns_of(page)) == 4
    speak(page)


def test_voices_are_stored_chosen_heard_and_deleted(page: Page, manager: FakeManager):
    page.locator("summary", has_text="Add a voice").click()
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_role("alert")).to_have_text("The voice needs a name.")
    page.get_by_label("Name").fill("a/b")
    page.get_by_label("Clip of one speaker").set_input_files(
        {"name": "a.wav", "mimeType": "audio/wav", "buffer": tone_file(1.5)}
    )
    expect(page.get_by_label("The clip", exact=True)).to_be_visible()
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_role("alert")).to_contain_text("name: 1 to 64 letters of any script")
    expect(page.get_by_label("Name")).to_be_focused()
    page.get_by_label("Name").fill("alice")
    page.get_by_label("What is said in it").fill("I am Alice.")
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_label("Stored voices").get_by_role("listitem")).to_contain_text("1.5 s")
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("alice")

    speak(page)
    page.get_by_role("button", name="Preview alice").click()
    wait_for(lambda: len(manager.requests) == 2)
    assert [request.audio_data for request in manager.requests] == [[tone_file(1.5)]] * 2
    expect(page.locator("#status")).to_have_text("Everything is here.")

    for answer, left in (("Keep it", 1), ("Delete", 0)):
        page.get_by_role("button", name="Delete alice").click()
        page.get_by_role("dialog").get_by_role("button", name=answer).click()
        expect(page.get_by_label("Stored voices").get_by_role("listitem")).to_have_count(left)
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("default")


def test_a_voice_is_recorded(page: Page, served: tuple[str, FakeManager]):
    page.locator("summary", has_text="Add a voice").click()
    page.get_by_label("Name").fill("me")
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#record-hint")).to_have_text("1 s")
    page.get_by_role("button", name="Stop recording").click()
    expect(page.locator("#record-hint")).to_have_text("recorded")
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_role("button", name="Preview me")).to_be_visible()
    (voice,) = httpx.get(f"{served[0]}v1/audio/voices").json()["data"]
    assert 0.5 < voice["seconds"] < 10


def test_a_double_click_starts_one_recording(page: Page):
    page.evaluate(SLOW_MICROPHONE)
    page.locator("summary", has_text="Add a voice").click()
    page.get_by_role("button", name="Record").dblclick()
    expect(page.locator("#record-hint")).to_have_text("1 s")
    page.get_by_role("button", name="Stop recording").click()
    expect(page.locator("#record-hint")).to_have_text("recorded")
    assert page.evaluate("tracks.map((track) => track.readyState)") == ["ended"]


def test_voices_that_the_server_would_refuse_are_pointed_out(page: Page, served: tuple[str, FakeManager]):
    store_voice(served[0], "alice")
    page.reload()
    gap = page.locator("#casting-gap")
    expect(gap).to_be_hidden()
    page.get_by_label("Voice of speaker 2").select_option("alice")
    expect(gap).to_have_text("S2 has a voice and S1 has none: give S1 one too.")
    page.get_by_label("Voice of speaker 1").select_option("alice")
    expect(gap).to_be_hidden()
    write(page, "[S1] One. [S3] Three.")
    page.get_by_label("Voice of speaker 3").select_option("alice")
    expect(gap).to_have_text("S3 has a voice and S2 has none: nobody is S2: renumber the speakers.")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("numbered from S1 without a gap")


def test_words_of_others_are_never_html(page: Page):
    voices = {"object": "list", "data": [{"name": HOSTILE, "text": HOSTILE, "seconds": 1.0}]}
    page.route("**/audio/voices", lambda route: route.fulfill(json=voices))
    page.route("**/audio/speech", lambda route: route.fulfill(status=400, json={"error": {"message": HOSTILE}}))
    page.reload()
    write(page, f"[S1] {HOSTILE} [S2] {HOSTILE}")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text(HOSTILE)
    expect(page.get_by_label("Stored voices").locator(".name")).to_have_text(HOSTILE)
    page.get_by_role("button", name="Delete").last.click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Keep it").click()
    page.reload()
    assert turns_of(page) == [("1", HOSTILE), ("2", HOSTILE)]
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "MOSS-TTSD"


def test_the_policy_forbids_html_and_strange_scripts(browser: Browser, served: tuple[str, FakeManager]):
    with browser.new_context() as context:
        opened = context.new_page()
        opened.goto(served[0])
        speak(opened)  # under the policy, which the other tests are without
        assert opened.evaluate("() => { try { document.body.innerHTML = '<b>' } catch (error) { return error.name } }")
        assert opened.evaluate("fetch('https://example.com').then(() => 'sent', () => 'forbidden')") == "forbidden"


def test_a_key_is_asked_for_and_kept_in_the_tab_only(browser: Browser, tmp_path: Path):
    with served_page(noise, tmp_path, api_key="secret") as (address, manager), browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        key = page.get_by_label("This server asks for an API key")
        expect(key).to_be_focused()
        for wrong in ("wrong", "“wrong”"):  # no header can hold the second
            key.fill(wrong)
            key.press("Enter")
            expect(page.locator("#key-hint")).to_have_text("The server did not take this key.")
            page.reload()
            expect(key).to_be_focused()
        key.fill("secret")
        key.press("Enter")
        expect(key).to_be_hidden()
        speak(page)
        assert len(manager.requests) == 1
        page.reload()
        speak(page)
        assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
        assert "secret" not in page.content()
        other = context.new_page()
        other.goto(address)
        expect(other.locator("#key-form")).to_be_visible()


def test_it_works_behind_a_prefix(browser: Browser, tmp_path: Path):
    with served_page(noise, tmp_path, prefix="/a/tts") as (address, manager), browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        speak(page)
        assert len(manager.requests) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_is_accessible(browser: Browser, served: tuple[str, FakeManager], width: int, scheme: Any):
    store_voice(served[0], "a" * 64)
    size: Any = {"width": width, "height": 740}
    with browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(served[0])
        expect(page.get_by_label("Stored voices").get_by_role("listitem")).to_have_count(1)
        write(page, f"[S1] {'word' * 50} [S2] Two. [S3] Three. [S4] Four. [S5] Five.")
        open_all(page)
        page.get_by_role("button", name="Store the voice").click()  # an error
        speak(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
