"""Voices on the page: stored, heard, cast, changed, recorded, and warned of."""

import io
import itertools
import re
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fake_manager import FakeManager, event, frames_of
from page_browser import choose, noise, served_page, speak, store_voice, write
from playwright.sync_api import BrowserContext, Page, expect
from sound_files import RATE, tone_file
from waiting import wait_for

from .conftest import opened_page

pytestmark = pytest.mark.wide

SOME_SECONDS = re.compile(r"^[1-9]\d* s$")  # of a recording that goes on
# Leave to use the microphone is given by window.allow(); its tracks are in window.tracks.
SLOW_MICROPHONE = """() => {
    window.tracks = [];
    const allowed = new Promise((resolve) => (window.allow = resolve));
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        await allowed;
        const stream = await ask(wanted);
        tracks.push(...stream.getTracks());
        return stream;
    };
}"""


def voices_of(address: str) -> list[Any]:
    return httpx.get(f"{address}v1/audio/voices", timeout=60).json()["data"]


def wav_file(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def speech_like(seconds: float, level: float = 0.3, noise: float = 0.0) -> np.ndarray:
    """Syllables with pauses between them."""
    t = np.arange(int(seconds * RATE)) / RATE
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * t), 0, None)
    return level * np.sin(2 * np.pi * 180 * t) * syllables + np.random.default_rng(0).normal(0, noise, len(t))


def clip(name: str = "alice.wav", data: bytes | None = None) -> Any:
    return {"name": name, "mimeType": "audio/wav", "buffer": data or tone_file(1.5)}


def open_form(page: Page) -> None:
    page.locator("summary", has_text="Add a voice").click()


def test_a_voice_is_stored_and_cast(page: Page, address: str, manager: FakeManager):
    open_form(page)
    error = page.locator("#voice-error")
    page.get_by_role("button", name="Store the voice").click()
    expect(error).to_have_text("Choose a clip, or record one.")
    page.get_by_label("Clip of one speaker").set_input_files(clip("Alice (1).wav"))
    expect(error).to_be_hidden()
    expect(page.get_by_label("The clip", exact=True)).to_be_visible()
    expect(page.get_by_role("textbox", name="Name", exact=True)).to_have_value("Alice 1")  # of the file
    page.get_by_role("textbox", name="Name", exact=True).fill("a/b")
    page.get_by_role("button", name="Store the voice").click()
    expect(error).to_contain_text("A name has up to 64 letters of any script")
    expect(page.get_by_role("textbox", name="Name", exact=True)).to_be_focused()
    page.get_by_role("textbox", name="Name", exact=True).fill("小明")
    expect(error).to_be_hidden()
    page.get_by_label("What is said in it").fill("I am Xiao Ming.")
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_label("Stored voices").get_by_role("listitem")).to_contain_text("0:01.5")
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("小明")
    expect(page.locator("#voice-form")).to_be_hidden()  # done
    assert [(voice["name"], voice["text"]) for voice in voices_of(address)] == [("小明", "I am Xiao Ming.")]
    speak(page)
    assert manager.requests[0].audio_data == [tone_file(1.5)]

    open_form(page)
    expect(page.get_by_role("combobox", name="Cast as")).to_have_value("2")  # who has none
    page.get_by_label("Clip of one speaker").set_input_files(clip())
    page.get_by_role("combobox", name="Cast as").select_option("")
    page.get_by_role("textbox", name="Name", exact=True).fill("小明")
    page.get_by_role("button", name="Store the voice").click()
    expect(error).to_have_text("There is a voice of this name already: choose another name.")
    page.get_by_role("textbox", name="Name", exact=True).fill("bob")
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_role("button", name="Play bob")).to_be_visible()
    expect(page.get_by_label("Voice of speaker 2")).to_have_value("")


def test_the_first_script_is_cast_with_the_voices_that_are_there(page: Page, address: str, manager: FakeManager):
    for name in ("rms", "heart", "slt"):
        store_voice(address, name)
    form = {"data": {"name": "a mute one"}, "files": {"audio": tone_file(1.5)}}
    assert httpx.post(f"{address}v1/audio/voices", **form, timeout=60).status_code == 201
    page.reload()
    first, second = (page.get_by_label(f"Voice of speaker {k}") for k in (1, 2))
    expect(first).to_have_value("heart")
    expect(second).to_have_value("rms")
    speak(page)
    assert len(manager.requests[0].audio_data) == 2
    page.reload()
    expect(page.get_by_role("button", name="Hear turn 2")).to_be_enabled()  # the script is the take's
    page.keyboard.press("Control+z")  # nobody has done that
    expect(first).to_have_value("heart")

    first.select_option("")
    page.reload()  # a script that somebody has touched stays as it is
    expect(second).to_have_value("rms")
    expect(page.get_by_role("button", name="Play heart")).to_be_visible()
    expect(first).to_have_value("")


def test_without_voices_three_ways_to_begin_are_offered(page: Page, manager: FakeManager):
    first = page.locator("#first-voice")
    expect(first).to_contain_text("No voices yet")
    first.get_by_role("button", name="Speak without one").click()
    expect(page.locator("#status")).to_have_text("Everything is here.")
    assert manager.requests[0].audio_data is None
    first.get_by_role("button", name="Record one").click()
    expect(page.locator("#record-hint")).to_have_text(SOME_SECONDS)
    page.get_by_role("button", name="Stop recording").click()
    expect(page.locator("#record-hint")).to_have_text("recorded")
    with page.expect_file_chooser() as chooser:
        first.get_by_role("button", name="Choose a clip").click()
    chooser.value.set_files(clip())
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_role("button", name="Play alice")).to_be_visible()
    expect(first).to_be_hidden()


def test_the_stored_clip_itself_is_heard(page: Page, address: str, manager: FakeManager):
    for name in ("alice", "bob"):
        store_voice(address, name, seconds=50)
    page.reload()
    page.evaluate("""() => {
        window.played = [];
        const play = HTMLMediaElement.prototype.play;
        HTMLMediaElement.prototype.play = function () { played.push(this); return play.call(this); };
    }""")
    page.get_by_role("button", name="Play alice").click()
    expect(page.get_by_role("button", name="Stop alice")).to_be_visible()
    page.wait_for_function("played[0]?.currentTime > 0")
    assert page.evaluate("played[0].duration") == pytest.approx(50, abs=0.01)
    page.evaluate("played[0].currentTime = 49.9")
    expect(page.get_by_role("button", name="Play alice")).to_be_visible()  # at its end
    page.get_by_role("button", name="Play alice").click()
    expect(page.get_by_role("button", name="Stop alice")).to_be_visible()
    page.get_by_role("button", name="Play bob").click()
    expect(page.get_by_role("button", name="Play alice")).to_be_visible()
    page.get_by_role("button", name="Stop bob").click()
    expect(page.get_by_role("button", name="Play bob")).to_be_visible()
    assert not manager.requests


def test_a_voice_is_changed(page: Page, address: str):
    store_voice(address, "alice")
    page.reload()
    page.get_by_label("Voice of speaker 1").select_option("alice")
    choose(page, page.get_by_role("button", name="More for alice"), "Edit the transcript")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("textbox")).to_have_value("I am alice.")
    dialog.get_by_role("textbox").fill("Something else.")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Stored voices")).to_contain_text("Something else.")

    choose(page, page.get_by_role("button", name="More for alice"), "Rename")
    dialog.get_by_role("textbox").fill("anna")
    dialog.get_by_role("textbox").press("Enter")
    expect(page.get_by_role("button", name="Play anna")).to_be_visible()
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("anna")  # still cast

    with page.expect_file_chooser() as chooser:
        choose(page, page.get_by_role("button", name="More for anna"), "Replace the clip")
    chooser.value.set_files(clip(data=tone_file(2.5)))
    expect(dialog).to_contain_text("Only 2.5 s")
    dialog.get_by_role("button", name="Replace").click()
    expect(page.get_by_label("Stored voices")).to_contain_text("0:02.5")
    assert [(voice["name"], voice["text"], voice["seconds"]) for voice in voices_of(address)] == [
        ("anna", "Something else.", 2.5)
    ]
    assert httpx.get(f"{address}v1/audio/voices/anna/clip", timeout=60).content == tone_file(2.5)

    for answer, left in (("Cancel", 1), ("Delete", 0)):
        choose(page, page.get_by_role("button", name="More for anna"), "Delete")
        dialog.get_by_role("button", name=answer).click()
        expect(page.get_by_label("Stored voices").get_by_role("listitem")).to_have_count(left)
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("")


def test_a_starter_voice_is_cast_and_not_changed(page: Page):
    voices = [
        {"name": name, "text": "Words.", "seconds": 5.0, "starter": name == "heart"} for name in ("anna", "heart")
    ]
    page.route("**/audio/voices", lambda route: route.fulfill(json={"data": voices}))
    page.reload()
    rows = {kind: page.get_by_label(f"{kind} voices").get_by_role("listitem") for kind in ("Stored", "Starter")}
    expect(rows["Stored"]).to_have_count(1)
    expect(rows["Stored"]).to_contain_text("anna")
    expect(rows["Starter"]).to_have_count(1)
    expect(rows["Starter"]).to_contain_text("heart")
    entries = {}
    for name in ("heart", "anna"):
        page.get_by_role("button", name=f"More for {name}").click()
        entries[name] = page.get_by_role("menuitem").all_inner_texts()
        page.keyboard.press("Escape")
    assert entries["heart"] == ["S1", "S2"]
    assert entries["anna"] == ["S1", "S2", "Edit the transcript", "Rename", "Replace the clip", "Delete"]
    choose(page, page.get_by_role("button", name="More for heart"), "S2")
    expect(page.get_by_label("Voice of speaker 2")).to_have_value("heart")


@pytest.mark.parametrize("has_stored", [True, False])
def test_voices_that_came_with_the_server_are_under_a_title_of_their_own(page: Page, has_stored: bool):
    titles = page.locator("#panel-voices h2:visible")
    expect(titles).to_have_text(["Cast", "Stored voices"])  # there are none
    voices = [{"name": name, "text": "Words.", "seconds": 5.0, "starter": True} for name in ("heart", "slt")]
    voices += [{"name": "anna", "text": "Hello.", "seconds": 5.0, "starter": False}] * has_stored
    page.route("**/audio/voices", lambda route: route.fulfill(json={"data": voices}))
    page.reload()
    expect(titles).to_have_text(["Cast", *["Stored voices"] * has_stored, "Starter voices"])
    page.locator("#language").select_option("zh")
    expect(page.get_by_label("自带的声音").get_by_role("listitem")).to_have_count(2)
    expect(titles).to_contain_text([*["已保存的声音"] * has_stored, "自带的声音"])


def test_voices_are_searched_by_name_and_words(page: Page):
    voices = [{"name": f"v{i}", "text": f"words {i}", "seconds": 5.0} for i in range(12)]
    page.route("**/audio/voices", lambda route: route.fulfill(json={"data": voices}))
    page.reload()
    rows = page.get_by_label("Stored voices").get_by_role("listitem")
    expect(rows).to_have_count(12)
    page.get_by_label("Search voices").fill("V11")
    expect(rows).to_have_count(1)
    page.get_by_label("Search voices").fill("words 1")
    expect(rows).to_have_count(3)
    page.get_by_label("Search voices").fill("nobody")
    expect(page.locator("#voices-none")).to_have_text("No voice is called so.")
    page.get_by_label("Search voices").fill("v11")
    page.route("**/audio/voices/v11", lambda route: route.fulfill(json={}))
    del voices[5:]
    choose(page, page.get_by_role("button", name="More for v11"), "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_label("Search voices")).to_be_hidden()  # so few need no search, and are all there
    expect(rows).to_have_count(5)


def test_a_clip_that_the_browser_cannot_play_says_so(page: Page, address: str):
    store_voice(address, "alice")
    page.route("**/alice/clip", lambda route: route.fulfill(body=b"no sound" * 99, content_type="audio/basic"))
    page.reload()
    page.get_by_role("button", name="Play alice").click()
    expect(page.locator("#voices-error")).to_contain_text("This browser cannot play it")
    expect(page.get_by_role("button", name="Play alice")).to_be_visible()


def test_a_voice_is_cast_from_its_menu(page: Page, address: str):
    store_voice(address, "alice")
    page.reload()
    page.get_by_label("Name of speaker 2").fill("Ben")
    choose(page, page.get_by_role("button", name="More for alice"), "Ben")
    expect(page.get_by_label("Voice of speaker 2")).to_have_value("alice")
    expect(page.locator("#status")).to_have_text("alice speaks for Ben.")


def test_a_clip_is_dropped(page: Page):
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(bytes)], "carol.wav"));
            for (const type of ["dragenter", "dragover", "drop"]) {
                const event = new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
                document.querySelector("#panel-voices").dispatchEvent(event);
            }
        }""",
        list(tone_file(1.5)),
    )
    expect(page.get_by_role("textbox", name="Name", exact=True)).to_have_value("carol")
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_role("button", name="Play carol")).to_be_visible()


def test_clips_are_listened_to_before_they_are_stored(page: Page):
    clips = {
        "Only 4.9 s": speech_like(4.9),
        "0:40 is long": speech_like(40),
        "1:10 is too long: the server takes 60 s at most": speech_like(70),
        "Nothing can be heard": np.zeros(8 * RATE),
        "very quiet": speech_like(8, level=0.02),
        "too loud and distorted": np.clip(speech_like(8, level=3.0), -1, 1),
        "noise or music": speech_like(8, noise=0.05),
        "Most of it is silence": np.concatenate([speech_like(5), np.zeros(15 * RATE)]),
    }
    open_form(page)
    findings = page.locator("#clip-findings li")
    for said, samples in clips.items():
        page.get_by_label("Clip of one speaker").set_input_files(clip(data=wav_file(samples)))
        expect(findings).to_contain_text([said])
        expect(findings).to_have_count(1)
    page.get_by_label("Clip of one speaker").set_input_files(clip(data=wav_file(speech_like(8))))
    page.wait_for_function("document.querySelector('#voice-heard').duration === 8")
    expect(page.locator("#clip-findings")).to_have_attribute("aria-busy", "false")
    expect(findings).to_have_count(0)


def test_how_long_a_clip_may_be_is_the_servers_to_say(context: BrowserContext, tmp_path: Path):
    with (
        served_page(noise, tmp_path, keeps_files=True, reference_max_seconds=6.5) as (address, _),
        opened_page(context, address) as page,
    ):
        assert httpx.get(f"{address}v1/audio/profile", timeout=60).json()["max_reference_seconds"] == 6.5
        open_form(page)
        page.get_by_label("Clip of one speaker").set_input_files(clip(data=wav_file(speech_like(7))))
        expect(page.locator("#clip-findings li")).to_have_text(["0:07 is too long: the server takes 6.5 s at most."])
        page.get_by_role("textbox", name="Name", exact=True).fill("long")
        page.get_by_role("button", name="Store the voice").click()
        expect(page.locator("#voice-error")).to_be_visible()
        page.get_by_label("Clip of one speaker").set_input_files(clip(data=wav_file(speech_like(6))))
        expect(page.locator("#clip-findings li")).to_have_count(0)
        page.get_by_role("button", name="Store the voice").click()
        expect(page.get_by_role("button", name="Play long")).to_be_visible()


def test_a_voice_is_recorded_with_its_level_in_sight(page: Page, address: str):
    open_form(page)
    page.get_by_role("textbox", name="Name", exact=True).fill("me")
    expect(page.locator("#meter")).to_be_hidden()
    began = time.monotonic()
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("#record-hint")).to_have_text(SOME_SECONDS)
    wait_for(lambda: float(page.locator("#meter").evaluate("meter => meter.value")) > 0.05)  # Chromium's beeps
    page.get_by_role("button", name="Stop recording").click()
    expect(page.locator("#record-hint")).to_have_text("recorded")
    page.get_by_role("button", name="Store the voice").click()
    expect(page.get_by_role("button", name="Play me")).to_be_visible()
    (voice,) = voices_of(address)
    assert 0.5 < voice["seconds"] < time.monotonic() - began


def test_a_double_click_starts_one_recording(page: Page):
    page.evaluate(SLOW_MICROPHONE)
    open_form(page)
    page.get_by_role("button", name="Record", exact=True).dblclick()
    page.evaluate("allow()")
    expect(page.locator("#record-hint")).to_have_text(SOME_SECONDS)
    page.get_by_role("button", name="Stop recording").click()
    expect(page.locator("#record-hint")).to_have_text("recorded")
    assert page.evaluate("tracks.map((track) => track.readyState)") == ["ended"]


def test_voices_that_the_server_would_refuse_are_pointed_out(page: Page, address: str):
    store_voice(address, "alice")
    page.reload()
    trouble = page.locator("#casting-trouble")
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("alice")
    expect(trouble).to_be_hidden()
    page.get_by_label("Voice of speaker 1").select_option("")
    page.get_by_label("Voice of speaker 2").select_option("alice")
    expect(trouble).to_have_text("S2 has a voice and S1 has none: give S1 one too.")
    page.get_by_label("Voice of speaker 1").select_option("alice")
    expect(trouble).to_be_hidden()
    write(page, "[S1] One. [S3] Three.")
    page.get_by_label("Voice of speaker 3").select_option("alice")
    expect(trouble).to_have_text("S3 has a voice and S2 has none: nobody is S2: renumber the speakers.")
    page.get_by_role("button", name="Speak", exact=True).click()
    alert = page.locator("#problem-words")
    expect(alert).to_contain_text("numbered from S1 without a gap")
    page.get_by_label("Voice of speaker 3").select_option("")
    expect(alert).to_be_hidden()


def test_a_voice_that_somebody_else_deleted_is_pointed_out(page: Page, address: str):
    store_voice(address, "alice")
    page.reload()
    page.get_by_label("Voice of speaker 1").select_option("alice")
    assert httpx.delete(f"{address}v1/audio/voices/alice", timeout=60).status_code == 200
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#problem-words")).to_have_text("The server has no voice of this name any more.")
    expect(page.locator("#casting-trouble")).to_have_text("S1’s voice, “alice”, is not on this server.")
    open_form(page)
    page.get_by_label("Clip of one speaker").set_input_files(clip("alice.wav"))
    page.get_by_role("combobox", name="Cast as").select_option("")
    page.get_by_role("button", name="Store the voice").click()
    expect(page.locator("#problem-words")).to_be_hidden()  # there it is again
    expect(page.locator("#casting-trouble")).to_be_hidden()


def test_a_speech_goes_on_while_voices_are_changed(page: Page, address: str, manager: FakeManager):
    store_voice(address, "alice")
    page.reload()
    manager.script = lambda _: (event(frames_of(500)) for _ in itertools.count())
    manager.pause_seconds = 0.05
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Speaking…")
    choose(page, page.get_by_role("button", name="More for alice"), "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_label("Stored voices").get_by_role("listitem")).to_have_count(0)
    assert not manager.closed
    page.get_by_role("button", name="Stop", exact=True).click()
