"""When turns are heard, on the page: as the server tells it, else as the page guesses."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from fake_manager import SAMPLE_RATE, STOP, FakeManager, event
from page_browser import choose, downloaded, halt, heard_samples, open_panel, speak, write
from page_browser import turns_of as turns_on
from playwright.sync_api import Page, Route, expect

from sglang_moss.audio.wav import wav_bytes
from sglang_moss.request.turns import turns_of
from sglang_moss.turn_times.timing import turn_times

pytestmark = pytest.mark.wide

SCRIPT = "[S1] Yes. [S2] It is about to rain, so they say. [S1] No."
SPOKEN_S = (2.0, 1.5, 1.0)  # nothing like the words' lengths
SILENT_S = 0.5


def vowel(seconds: float, hz: float) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.rint(4_000 * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 9))).astype(np.int16)


SILENCE = np.zeros(round(SILENT_S * SAMPLE_RATE), np.int16)
PARTS = [np.concatenate([vowel(seconds, 110 + 90 * (k % 2)), SILENCE]) for k, seconds in enumerate(SPOKEN_S)]
PCM = np.concatenate(PARTS)


def three_vowels(_request: Any) -> list[dict[str, Any]]:
    return [event(PARTS[0]), event(PARTS[1]), event(PARTS[2], STOP)]


@contextmanager
def answered(page: Page, *events: dict[str, Any]) -> Iterator[None]:
    """The speech API answers these events."""
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in events)
    page.route("**/audio/speech", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    yield
    page.unroute("**/audio/speech")


def sound(pcm: np.ndarray) -> dict[str, Any]:
    return {"type": "speech.audio.delta", "audio": base64.b64encode(pcm.tobytes()).decode()}


def saved_turns(page: Page) -> tuple[bool, list[dict[str, Any]]]:
    """Whether the page has guessed, and what it knows of each turn."""
    saved = json.loads(downloaded(page, "JSON").read_text())
    return saved["estimated"], saved["turns"]


def borders(turns: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(turn["start"], turn["end"]) for turn in turns]


def told(script: str, pcm: np.ndarray, *, is_cut: bool = False) -> list[tuple[float, float]]:
    """What the server's own rule says."""
    return [tuple(span) for span in turn_times(pcm, SAMPLE_RATE, turns_of(script), is_cut=is_cut).round(2).tolist()]


def test_the_servers_times_are_asked_for_and_taken(page: Page, manager: FakeManager):
    write(page, SCRIPT)
    manager.script = three_vowels
    speak(page)
    expect(page.locator("#estimate")).to_be_hidden()
    is_guess, turns = saved_turns(page)
    assert not is_guess
    assert borders(turns) == told(SCRIPT, PCM)
    assert borders(turns)[1] == pytest.approx((2.5, 4.0), abs=0.05)
    assert downloaded(page, "SRT").read_text().count("-->") == 3

    # The waveform's strip and the caption go by them too, of what was playing since before they were told.
    halt(page)
    slider = page.get_by_role("slider", name="Position")
    box = slider.bounding_box()
    assert box
    for seconds, words in ((1.8, "S1: Yes."), (3.5, "S2: It is about to rain, so they say."), (5.0, "S1: No.")):
        slider.click(position={"x": box["width"] * seconds * SAMPLE_RATE / len(PCM), "y": 40})
        expect(page.locator("#caption")).to_have_text(words)


def test_until_they_are_told_what_is_there_is_gone_by(page: Page, manager: FakeManager):
    """A speech that is still coming has its borders where it is quiet, as far as it came."""
    write(page, "[S1] It is about to rain, so they say. [S2] It is about to rain, or so they say. [S1] Perhaps not.")
    rest = threading.Event()
    manager.script = lambda _: [event(np.concatenate(PARTS[:2])), rest, event(PARTS[2], STOP)]
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).click()
    slider = page.get_by_role("slider", name="Position")
    slider.press("Home")
    page.get_by_role("button", name="Turn after").click()
    assert 2.0 < float(slider.get_attribute("aria-valuenow") or 0) <= 2.5  # in the silence; by the words alone at 2.8
    expect(page.locator("#status")).to_have_text("Speaking…")
    rest.set()
    expect(page.locator("#heard")).to_contain_text("Take")
    expect(page.locator("#estimate")).to_be_hidden()
    slider.press("Home")
    page.get_by_role("button", name="Turn after").click()
    assert float(slider.get_attribute("aria-valuenow") or 0) == pytest.approx(2.5, abs=0.05)  # as told


@pytest.mark.parametrize("answer", [None, "null", '{"turns": "abc"}', '{"turns": [null, null, null]}'])
def test_of_a_server_that_does_not_tell_turns_are_guessed(page: Page, answer: str | None):
    write(page, SCRIPT)
    page.route("**/page/turns", lambda route: route.abort() if answer is None else route.fulfill(body=answer))
    with answered(page, sound(PCM), {"type": "speech.audio.done", "finish_reason": "stop"}):
        speak(page)
    expect(page.locator("#estimate")).to_be_visible()
    is_guess, turns = saved_turns(page)
    assert is_guess
    assert [turn["text"] for turn in turns] == ["Yes.", "It is about to rain, so they say.", "No."]
    times = borders(turns)
    assert times[0][0] == 0
    assert times[-1][1] == pytest.approx(len(PCM) / SAMPLE_RATE, abs=0.001)
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([("S1", 0.1, 1.5), ("S1", 1.9, 3.4), ("S2", 4.1, 5.6)], id="other speakers"),
        pytest.param([("S1", 0.1, 1.5)], id="too few"),
        pytest.param([("S1", 0.1, 1.5), ("S2", 1.9, 3.4), ("S1", 41.0, 42.0)], id="of another speech"),
    ],
)
def test_times_that_are_not_of_these_turns_are_not_taken(page: Page, given: list[tuple[str, float, float]]):
    turns = [{"speaker": speaker, "start": start, "end": end, "text": ""} for speaker, start, end in given]
    write(page, SCRIPT)
    with answered(page, sound(PCM), {"type": "speech.audio.done", "finish_reason": "stop", "turns": turns}):
        speak(page)
    expect(page.locator("#estimate")).to_be_visible()


def test_neighbours_of_one_speaker_may_be_told_as_one_turn(page: Page):
    turns = [
        {"speaker": "S1", "start": 0.1, "end": 2.1, "text": ""},
        {"speaker": "S2", "start": 2.6, "end": 4.0, "text": ""},
    ]
    write(page, "[S1] One. [S1] Two. [S2] Three.")
    with answered(page, sound(PCM), {"type": "speech.audio.done", "finish_reason": "stop", "turns": turns}):
        speak(page)
    expect(page.locator("#estimate")).to_be_hidden()
    assert borders(saved_turns(page)[1]) == [(0.1, 1.1), (1.1, 2.1), (2.6, 4.0)]


def test_a_speech_that_was_cut_has_the_turns_that_it_reached(page: Page, manager: FakeManager):
    """The rest is offered to be spoken on."""
    script = "[S1] It is about to rain, so they say. [S2] It is about to rain, I think. [S1] We shall see. [S2] Yes."
    write(page, script)
    manager.script = lambda _: [event(PARTS[0]), event(PARTS[1], {"type": "length", "length": 9})]
    speak(page)
    _, turns = saved_turns(page)
    assert borders(turns) == told(script, np.concatenate(PARTS[:2]), is_cut=True)
    assert len(turns) == 2
    classes = [row.get_attribute("class") or "" for row in page.locator(".turn").all()]
    assert ["edited" in each for each in classes] == [False, True, True, True]
    expect(page.locator("#update")).to_have_text("Update take3")

    manager.script = lambda _: [event(PARTS[2], STOP)]  # the voices are nobody's: spoken by themselves
    open_panel(page, "Settings").get_by_text("More settings").click()
    page.get_by_label("Mode").select_option("generation")
    page.get_by_label("Words of turn 3").fill("")
    page.get_by_label("Words of turn 4").fill("")
    page.locator("#update").click()
    expect(page.locator("#heard")).to_have_text("Take 2")
    expect(page.locator("#update")).to_be_hidden()
    assert [turn["text"] for turn in saved_turns(page)[1]] == [
        "It is about to rain, so they say.",
        "It is about to rain, I think.",
    ]
    pcm = heard_samples(page)
    assert np.array_equal(pcm[: 2 * SAMPLE_RATE], PCM[: 2 * SAMPLE_RATE])
    assert np.array_equal(pcm[-SAMPLE_RATE:], PARTS[2][-SAMPLE_RATE:])


@pytest.mark.parametrize(("end", "is_cut"), [(5.5, False), (6.0, True)])
def test_a_last_turn_with_silence_behind_it_was_not_cut(page: Page, end: float, is_cut: bool):
    """Of a script in parts, each may be cut, and the next goes on."""
    given = [("S1", 0.1, 2.0), ("S2", 2.5, 4.0), ("S1", 4.5, end)]
    turns = [{"speaker": speaker, "start": start, "end": end, "text": ""} for speaker, start, end in given]
    write(page, SCRIPT)
    with answered(page, sound(PCM), {"type": "speech.audio.done", "finish_reason": "length", "turns": turns}):
        speak(page)
    classes = [row.get_attribute("class") or "" for row in page.locator(".turn").all()]
    assert ["edited" in each for each in classes] == [False, False, is_cut]


@pytest.mark.parametrize("tells", [True, False])
def test_a_speech_that_was_stopped_has_the_turns_that_it_reached(page: Page, manager: FakeManager, tells: bool):
    script = "[S1] It is about to rain, so they say. [S2] It is about to rain, I think. [S1] We shall see."
    write(page, script)
    if not tells:
        page.route("**/page/turns", lambda route: route.abort())
    manager.script = lambda _: [event(PARTS[0]), threading.Event()]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Speaking…")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#heard")).to_have_text("Take 1")
    if tells:
        expect(page.locator("#estimate")).to_be_hidden()
    is_guess, turns = saved_turns(page)
    assert is_guess != tells
    assert [turn["text"] for turn in turns] == ["It is about to rain, so they say."]
    assert borders(turns) == (told(script, PARTS[0], is_cut=True) if tells else [(0, len(PARTS[0]) / SAMPLE_RATE)])
    open_panel(page, "Takes")
    page.get_by_role("button", name="More for Take 1").click()
    page.get_by_role("menuitem", name="Restore its script").click()
    expect(page.locator(".turn")).to_have_count(3)  # what was asked for is not lost


def test_a_speech_is_kept_before_its_turns_are_told(page: Page, manager: FakeManager):
    """As what it was made from, whatever is written meanwhile."""
    script = "[S1] It is about to rain, so they say. [S2] It is about to rain, I think. [S1] We shall see."
    write(page, script)
    asked = turns_on(page)
    held: list[Route] = []
    page.route("**/page/turns", lambda route: held.append(route))
    manager.script = lambda _: [event(np.concatenate(PARTS[:2])), threading.Event()]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Speaking…")
    page.keyboard.press("Escape")
    expect(page.locator("#heard")).to_have_text("Take 1")
    expect(page.locator("#estimate")).to_be_visible()
    choose(page, page.get_by_role("button", name="More for turn 1"), "1 s")
    page.get_by_label("Words of turn 3").fill("Meanwhile.")
    held[0].continue_()
    expect(page.locator("#estimate")).to_be_hidden()
    is_guess, turns = saved_turns(page)
    assert not is_guess
    (first, (start, end)) = told(script, np.concatenate(PARTS[:2]), is_cut=True)
    assert np.array(borders(turns)) == pytest.approx(np.array([first, (start + 1, end + 1)]))
    open_panel(page, "Takes")
    choose(page, page.get_by_role("button", name="More for Take 1"), "Restore its script")
    assert turns_on(page) == asked


def spoken_on(page: Page, pcm: np.ndarray, finish_reason: dict[str, Any] | None) -> None:
    """`/generate` answers this; without a reason it breaks off."""
    wav = base64.b64encode(wav_bytes(pcm, SAMPLE_RATE)).decode()
    body = f"data: {json.dumps({'text': wav, 'meta_info': {'finish_reason': finish_reason}})}\n\n"
    page.route("**/generate", lambda route: route.fulfill(body=body, content_type="text/event-stream"))


def test_a_take_that_was_cut_keeps_the_rest_of_its_script(page: Page, manager: FakeManager):
    write(page, "[S1] Yes. [S2] It is about to rain, so they say. [S1] It is about to rain, I think. [S2] No.")
    asked = turns_on(page)
    manager.script = three_vowels
    speak(page)
    spoken_on(page, PARTS[0], None)
    choose(page, page.get_by_role("button", name="More for turn 2"), "Speak from here on")
    expect(page.locator("#heard")).to_have_text("Take 2")
    expect(page.locator("#estimate")).to_be_hidden()
    assert [turn["text"] for turn in saved_turns(page)[1]] == ["Yes.", "It is about to rain, so they say."]
    spoken_on(page, PARTS[1], STOP)
    page.get_by_role("button", name="Speak turn 2 again").click()
    expect(page.locator("#heard")).to_have_text("Take 3")
    open_panel(page, "Takes")
    for take in ("Take 2", "Take 3"):
        page.get_by_label("Words of turn 4").fill("Other.")
        page.get_by_label("Words of turn 3").fill("Other.")
        choose(page, page.get_by_role("button", name=f"More for {take}"), "Restore its script")
        assert turns_on(page) == asked


def test_turns_that_are_spoken_on_have_the_servers_times(page: Page, manager: FakeManager):
    """A speech that continues a clip tells none; the page asks for those of what came."""
    write(page, SCRIPT)
    manager.script = three_vowels
    speak(page)
    page.get_by_label("Words of turn 2").fill("No.")
    page.get_by_label("Words of turn 3").fill("It is about to rain, so they say.")
    came = np.concatenate([PARTS[2], PARTS[0]])
    spoken_on(page, came, STOP)
    choose(page, page.get_by_role("button", name="More for turn 2"), "Speak from here on")
    expect(page.locator("#heard")).to_have_text("Take 2")
    expect(page.locator("#estimate")).to_be_hidden()
    _, turns = saved_turns(page)
    cut = 2.25  # in the silence behind the first turn
    expected = np.array(told("[S2] No. [S1] It is about to rain, so they say.", came)) + cut
    assert np.array(borders(turns)[1:]) == pytest.approx(expected, abs=0.05)
