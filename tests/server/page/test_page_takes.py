"""Takes on the page: kept, compared, renamed, restored, saved, spoken again in part, with pauses between turns."""

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_manager import FRAME_SAMPLES, SAMPLE_RATE, FakeManager, event, frames_of
from page_browser import (
    NOISE,
    choose,
    downloaded,
    halt,
    heard_samples,
    noise,
    open_panel,
    speak,
    store_voice,
    turns_of,
    write,
)
from playwright.sync_api import Page, Route, expect

from sglang_moss.audio.wav import wav_bytes
from sglang_moss.generate_body import parse
from sglang_moss.request.script import read_script
from sglang_moss.request.settings import RequestOptions

pytestmark = pytest.mark.wide

STOP = {"type": "stop"}
SILENT_FRAMES = 5
SCRIPT = "[S1] First turn. [S2] Second turn. [S1] Third turn."


def three_turns(_request: Any, n_frames: int = 20) -> list[dict[str, Any]]:
    """Loud, silent, loud, silent, loud: 20 frames, 5, 20, 5, 20."""
    loud = [frames_of(level, n_frames) for level in (3000, 6000, 9000)]
    silent = np.zeros(SILENT_FRAMES * FRAME_SAMPLES, np.int16)
    return [event(np.concatenate([loud[0], silent, loud[1], silent, loud[2]]), STOP)]


def take(page: Page, name: str) -> Any:
    return page.get_by_role("listitem").filter(has=page.get_by_text(name, exact=True))


class Generate:
    """Stands in for `/generate`: answers a stream of frames of one level, and keeps what it was asked."""

    def __init__(self, page: Page, level: int = 1500, n_frames: int = 10) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.level = level
        self.n_frames = n_frames
        page.route("**/generate", self.answer)

    def answer(self, route: Route) -> None:
        self.bodies.append(json.loads(route.request.post_data or ""))
        wav = base64.b64encode(wav_bytes(frames_of(self.level, self.n_frames), SAMPLE_RATE)).decode()
        events = [{"text": wav, "meta_info": {"finish_reason": STOP}}]
        body = "".join(f"data: {json.dumps(one)}\n\n" for one in events) + "data: [DONE]\n\n"
        route.fulfill(body=body, content_type="text/event-stream")


def spoken_by(body: dict[str, Any]) -> tuple[RequestOptions, list[np.ndarray], str]:
    """A body of `/generate` as the server reads it: settings, [L] int16 of each clip, and the text."""
    request = parse({**body})
    options = RequestOptions.parse(body["sampling_params"])
    clips = [soundfile.read(io.BytesIO(base64.b64decode(clip)), dtype="int16")[0] for clip in body["audio_data"]]
    assert request.stream
    return options, clips, read_script(body["text"]).text


def test_every_speech_is_kept_until_it_is_deleted(page: Page):
    speak(page)
    speak(page)
    takes = open_panel(page, "Takes")
    expect(takes.get_by_role("listitem")).to_have_count(2)
    page.reload()
    expect(takes.get_by_role("listitem")).to_have_count(2)
    expect(page.locator("#heard")).to_have_text("Take 2")  # the last one is in the player
    assert np.array_equal(heard_samples(page), NOISE)
    choose(page, page.get_by_role("button", name="More for Take 1"), "Delete")
    expect(takes.get_by_role("listitem")).to_have_count(1)
    page.locator("#toast").get_by_role("button", name="Undo").click()
    expect(takes.get_by_role("listitem")).to_have_count(2)
    choose(page, page.get_by_role("button", name="More for Take 2"), "Delete")
    expect(page.locator("#dock")).to_have_class("dock idle")
    page.reload()
    expect(takes.get_by_role("listitem")).to_have_count(1)


def test_a_browser_that_keeps_nothing_says_so(page: Page):
    page.add_init_script("delete window.indexedDB; Object.defineProperty(window, 'indexedDB', { value: undefined })")
    page.reload()
    speak(page)
    takes = open_panel(page, "Takes")
    expect(takes).to_contain_text("takes are gone when the tab is closed")
    expect(takes.get_by_role("listitem")).to_have_count(1)
    assert np.array_equal(heard_samples(page), NOISE)


def test_a_take_is_renamed_and_its_script_restored(page: Page, address: str):
    store_voice(address, "alice")
    page.reload()
    page.get_by_label("Voice of speaker 1").select_option("alice")
    speak(page)
    first = turns_of(page)
    open_panel(page, "Takes")
    choose(page, page.get_by_role("button", name="More for Take 1"), "Rename")
    page.get_by_role("dialog").get_by_role("textbox").fill("The good one")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.locator("#heard")).to_have_text("The good one")
    write(page, "[S1] Other.")
    open_panel(page, "Voices")
    page.get_by_label("Voice of speaker 1").select_option("")
    open_panel(page, "Takes")
    choose(page, page.get_by_role("button", name="More for The good one"), "Restore its script")
    assert turns_of(page) == first
    open_panel(page, "Voices")
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("alice")
    page.keyboard.press("Control+z")
    assert turns_of(page) == [("1", "Other.")]


def test_a_seed_is_kept_with_one_click(page: Page, manager: FakeManager):
    speak(page)
    seed = manager.requests[0].sampling_params["sampling_seed"]
    open_panel(page, "Takes")
    choose(page, page.get_by_role("button", name="More for Take 1"), "Keep its seed")
    speak(page)
    expect(page.locator("#heard")).to_have_text("Take 2")
    assert manager.requests[1].sampling_params["sampling_seed"] == seed


def test_two_takes_are_compared_in_the_same_place(page: Page, manager: FakeManager):
    write(page, SCRIPT)
    manager.script = three_turns
    speak(page)
    manager.script = lambda _: [*three_turns(_)[:0], event(np.repeat(three_pcm(), 2), STOP)]
    speak(page)
    expect(page.locator("#heard")).to_have_text("Take 2")
    halt(page)
    open_panel(page, "Takes")
    page.get_by_role("button", name="Compare Take 1 as A").click()
    sides = page.get_by_role("group", name="Compare two takes")
    expect(sides.get_by_role("button", name="Hear B: Take 2")).to_have_attribute("aria-pressed", "true")
    slider = page.get_by_role("slider", name="Position")
    slider.press("Home")
    for _ in range(2):
        slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuenow", "4.0")
    sides.get_by_role("button", name="Hear A: Take 1").click()
    expect(page.locator("#heard")).to_have_text("Take 1")
    assert float(slider.get_attribute("aria-valuenow") or 0) == pytest.approx(2.0, abs=0.15)  # the same turn
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("x")
    expect(page.locator("#heard")).to_have_text("Take 2")
    assert float(slider.get_attribute("aria-valuenow") or 0) == pytest.approx(4.0, abs=0.15)
    sides.get_by_role("button", name="End the comparison").click()
    expect(sides).to_be_hidden()


def three_pcm() -> np.ndarray:
    """[L] int16 of `three_turns`."""
    wav = base64.b64decode(three_turns(None)[0]["text"])
    return soundfile.read(io.BytesIO(wav), dtype="int16")[0]


def test_a_turn_is_heard_and_lit(page: Page, manager: FakeManager):
    """Turns of 20 s: what is to be seen while one of them plays is seen in time on a busy machine too."""
    write(page, SCRIPT)
    manager.script = lambda _: three_turns(_, n_frames=250)
    speak(page)
    page.get_by_role("button", name="Hear turn 3").click()
    expect(page.locator(".turn").nth(2)).to_have_class("turn playing")
    expect(page.locator("#caption")).to_have_text("S1: Third turn.")
    halt(page)
    slider = page.get_by_role("slider", name="Position")
    box = slider.bounding_box()
    assert box
    slider.click(position={"x": box["width"] / 2, "y": 3})  # the strip of turns: it plays from the turn's beginning
    expect(page.locator(".turn").nth(1)).to_have_class("turn playing")
    halt(page)
    assert 20 <= float(slider.get_attribute("aria-valuenow") or 0) < 30
    page.get_by_role("button", name="Turn after").click()
    expect(page.locator(".turn").nth(2)).to_have_class("turn playing")
    page.get_by_role("button", name="Back 5 seconds").click()
    expect(page.locator(".turn").nth(1)).to_have_class("turn playing")


def test_pauses_are_put_in_without_speaking_again(page: Page, manager: FakeManager):
    write(page, SCRIPT)
    manager.script = three_turns
    speak(page)
    halt(page)
    choose(page, page.get_by_role("button", name="More for turn 2"), "2 s")
    expect(page.locator("#time")).to_contain_text(f"/ 0:0{70 * 0.08 + 2:.1f}")
    pcm = heard_samples(page)
    assert len(pcm) == 70 * FRAME_SAMPLES + 2 * SAMPLE_RATE
    loud = np.flatnonzero(pcm)
    assert np.diff(loud).max() > 2 * SAMPLE_RATE + SILENT_FRAMES * FRAME_SAMPLES
    assert np.array_equal(pcm[loud], three_pcm()[np.flatnonzero(three_pcm())])
    saved = json.loads(downloaded(page, "JSON").read_text())
    assert saved["turns"][2]["start"] == pytest.approx(47.5 * 0.08 + 2, abs=0.2)
    page.reload()
    expect(page.locator("#time")).to_contain_text("0:07.6")
    page.get_by_role("button", name="Remove the pause of 2 s after turn 2").click()
    expect(page.locator("#time")).to_contain_text("0:05.6")
    assert np.array_equal(heard_samples(page), three_pcm())
    assert len(manager.requests) == 1


def test_one_turn_is_spoken_again_behind_what_comes_before_it(page: Page, address: str, manager: FakeManager):
    for name in ("alice", "bob"):
        store_voice(address, name)
    page.reload()
    page.get_by_label("Voice of speaker 1").select_option("alice")
    page.get_by_label("Voice of speaker 2").select_option("bob")
    write(page, SCRIPT)
    manager.script = three_turns
    speak(page)
    halt(page)
    generate = Generate(page)
    page.get_by_label("Words of turn 2").fill("It’s well-known.")
    expect(page.locator(".turn").nth(1)).to_have_class("turn edited")
    page.get_by_role("button", name="Speak turn 2 again").click()
    expect(page.locator("#heard")).to_have_text("Take 2")

    (body,) = generate.bodies
    options, clips, text = spoken_by(body)
    assert (options.mode, options.strict) == ("continuation", True)
    assert text == "[S1]I am alice.[S2]I am bob.[S1]First turn.[S2]It's well known."
    assert [len(clip) for clip in clips[:2]] == [1.5 * SAMPLE_RATE] * 2
    before = three_pcm()
    cut = len(clips[2])
    assert 20 * FRAME_SAMPLES < cut < 25 * FRAME_SAMPLES  # in the silence
    assert np.array_equal(clips[2], before[:cut])

    pcm = heard_samples(page)
    loud = pcm[np.flatnonzero(pcm)]
    expected = [(3000, 20), (1500, 10), (9000, 20)]
    rest = np.flatnonzero(np.diff(loud))  # where the level changes: only at two joins, over some milliseconds
    levels = [level for level, _ in expected]
    for level, n_frames in expected:
        assert np.sum(loud == level) == pytest.approx(n_frames * FRAME_SAMPLES, abs=0.02 * SAMPLE_RATE)
    assert set(loud[np.r_[0, rest[-1] + 1]]) <= set(levels)
    assert np.abs(np.diff(pcm.astype(int))).max() <= 9000
    expect(open_panel(page, "Takes").get_by_role("listitem")).to_have_count(2)  # the old one is still there


def test_a_splice_does_not_click(page: Page, manager: FakeManager):
    """Where two parts meet in the middle of sound, one fades into the other."""
    write(page, SCRIPT)
    manager.script = lambda _: [event(frames_of(8000, 60), STOP)]
    speak(page)
    Generate(page, level=-8000, n_frames=20)
    page.get_by_role("button", name="Speak turn 2 again").click()
    expect(page.locator("#heard")).to_have_text("Take 2")
    pcm = heard_samples(page).astype(int)
    assert np.abs(np.diff(pcm)).max() <= 16_000 / (0.01 * SAMPLE_RATE) + 1
    assert np.sum(pcm == -8000) == pytest.approx(20 * FRAME_SAMPLES, abs=0.025 * SAMPLE_RATE)


def test_the_rest_is_spoken_on_from_a_turn(page: Page, manager: FakeManager):
    write(page, SCRIPT)
    manager.script = three_turns
    speak(page)
    generate = Generate(page, n_frames=30)
    page.get_by_label("Words of turn 2").fill("Something new.")
    page.get_by_label("Words of turn 3").press("Enter")
    page.get_by_label("Words of turn 4").fill("And more.")
    choose(page, page.get_by_role("button", name="More for turn 2"), "Speak from here on")
    expect(page.locator("#heard")).to_have_text("Take 2")
    _, clips, text = spoken_by(generate.bodies[0])
    # Nobody has a voice: the longest turn of [S2] says what hers is.
    assert text == "[S2]Second turn.[S1]First turn.[S2]Something new.[S1]Third turn.[S2]And more."
    assert len(clips) == 2
    pcm = heard_samples(page)
    assert np.sum(pcm == 3000) == pytest.approx(20 * FRAME_SAMPLES, abs=0.02 * SAMPLE_RATE)
    assert np.sum(pcm == 1500) == pytest.approx(30 * FRAME_SAMPLES, abs=0.02 * SAMPLE_RATE)
    assert not np.any(pcm == 9000)
    saved = json.loads(downloaded(page, "JSON").read_text())
    assert [turn["text"] for turn in saved["turns"]] == ["First turn.", "Something new.", "Third turn.", "And more."]
    expect(page.get_by_role("button", name="Hear turn 4")).to_be_enabled()


def test_voices_that_cannot_be_continued_are_cloned_again(page: Page, manager: FakeManager):
    write(page, SCRIPT)
    manager.script = three_turns
    speak(page)
    settings = open_panel(page, "Settings")
    settings.get_by_text("More settings").click()
    settings.get_by_label("Mode").select_option("generation")
    manager.script = lambda _: [event(frames_of(1500, 10), STOP)]
    page.get_by_role("button", name="Speak turn 2 again").click()
    expect(page.locator("#heard")).to_have_text("Take 2")
    assert manager.requests[1].text.endswith("[S2] Second turn.")
    assert manager.requests[1].audio_data is None


def test_a_turn_that_fails_halfway_leaves_the_take_as_it_was(page: Page, manager: FakeManager):
    write(page, SCRIPT)
    manager.script = three_turns
    speak(page)
    page.route("**/generate", lambda route: route.fulfill(body=cut_stream(), content_type="text/event-stream"))
    page.get_by_role("button", name="Speak turn 2 again").click()
    expect(page.locator("#problem-words")).to_have_text("The connection broke off; what came is kept.")
    expect(page.locator("#heard")).to_have_text("Take 1")
    assert np.array_equal(heard_samples(page), three_pcm())


def cut_stream() -> str:
    wav = base64.b64encode(wav_bytes(frames_of(1500, 3), SAMPLE_RATE)).decode()
    return f"data: {json.dumps({'text': wav, 'meta_info': {'finish_reason': None}})}\n\n"


def test_a_file_is_named_after_project_and_take(page: Page):
    choose(page, page.get_by_role("button", name="Examples"), "末班车")
    speak(page)
    page.locator("#download").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="MP3").click()
    assert download.value.suggested_filename == "广播剧-末班车-Take-1.mp3"
    assert Path(download.value.path()).stat().st_size > 1000


def test_a_long_title_leaves_the_takes_name_in_the_files(page: Page):
    page.get_by_label("Title").fill("多" * 200)
    speak(page)
    page.locator("#download").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="WAV").click()
    assert download.value.suggested_filename == f"{'多' * 40}-Take-1.wav"


def test_subtitles_hold_any_words(page: Page):
    write(page, "[S1] One --> two & <b>three</b>\n \nfour. [S2] Five.")
    page.get_by_label("Name of speaker 1").fill("A & B <3")
    speak(page)
    vtt = downloaded(page, "WebVTT").read_text()
    assert "<v A &amp; B &lt;3>One --&gt; two &amp; &lt;b&gt;three&lt;/b&gt;\nfour.\n\n" in vtt
    assert vtt.count("-->") == 2


def test_only_what_was_changed_is_spoken_for_an_updated_take(page: Page, manager: FakeManager):
    write(page, "[S1] One. [S2] Two. [S1] Three. [S2] Four.")
    manager.script = lambda _: [event(np.concatenate([frames_of(1000 * k, 20) for k in (2, 4, 6, 8)]), STOP)]
    speak(page)
    update = page.locator("#update")
    expect(update).to_be_hidden()
    generate = Generate(page, level=-5000, n_frames=10)
    page.get_by_label("Words of turn 2").fill("Zwei.")
    expect(update).to_contain_text("1")
    page.get_by_role("button", name="Remove turn 3").click()
    page.get_by_label("Words of turn 3").press("Enter")
    page.get_by_label("Words of turn 4").fill("Five.")
    page.get_by_label("Words of turn 3").press("Alt+ArrowUp")
    page.get_by_label("Words of turn 2").press("Alt+ArrowUp")  # Four, One, Zwei, Five
    update.click()
    expect(page.locator("#heard")).to_have_text("Take 2")
    expect(update).to_be_hidden()
    (body,) = generate.bodies  # Zwei and Five, one after the other
    assert spoken_by(body)[2] == "[S2]Four.[S1]One.[S2]Zwei.[S1]Five."
    pcm = heard_samples(page)
    levels = [level for level in (2000, 4000, 6000, 8000, -5000) if np.sum(pcm == level) > 5 * FRAME_SAMPLES]
    assert levels == [2000, 8000, -5000]
    assert np.flatnonzero(pcm == 8000)[-1] < np.flatnonzero(pcm == 2000)[0] + 3 * FRAME_SAMPLES
    assert np.sum(pcm == -5000) == pytest.approx(10 * FRAME_SAMPLES, abs=0.02 * SAMPLE_RATE)
    assert np.abs(np.diff(pcm.astype(int))).max() <= 8_000 / (0.01 * SAMPLE_RATE) * 2 + 2000
    saved = json.loads(downloaded(page, "JSON").read_text())
    assert [turn["text"] for turn in saved["turns"]] == ["Four.", "One.", "Zwei.", "Five."]


def test_an_update_that_only_cuts_asks_nobody(page: Page, manager: FakeManager):
    write(page, SCRIPT)
    manager.script = three_turns
    speak(page)
    page.get_by_role("button", name="Remove turn 2").click()
    page.locator("#update").click()
    expect(page.locator("#heard")).to_have_text("Take 2")
    pcm = heard_samples(page)
    assert [int(np.sum(pcm == level)) > 19 * FRAME_SAMPLES for level in (3000, 6000, 9000)] == [True, False, True]
    assert len(manager.requests) == 1


def test_another_take_is_heard_while_one_is_made(page: Page, manager: FakeManager):
    speak(page)
    first, *others = noise(None)
    rest = threading.Event()
    manager.script = lambda _: [first, rest, *others]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Speaking…")
    open_panel(page, "Takes")
    page.get_by_role("button", name="Play Take 1").click()
    expect(page.locator("#heard")).to_have_text("Take 1")
    rest.set()
    expect(page.get_by_role("tabpanel", name="Takes").get_by_role("listitem")).to_have_count(2)
    expect(page.locator("#heard")).to_have_text("Take 1")
