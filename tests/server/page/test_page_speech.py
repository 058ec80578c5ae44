"""The page while it has something spoken: what is heard, stopped, refused and shown."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fake_manager import FRAME_SAMPLES, SAMPLE_RATE, STOP, FakeManager, event, frames_of
from page_browser import N_EVENTS, NOISE, choose, downloaded, heard_samples, noise, open_panel, speak, store_voice
from playwright.sync_api import Page, Route, expect
from sound_files import decoded
from waiting import wait_for

from sglang_moss.errors import BadText, MossError

pytestmark = pytest.mark.wide

# Samples on their way to the loudspeaker, which window.taken() gives and forgets; the page's context is made early so
# that none is missed. They come from the audio's own thread, some after the page has been told that the sound is over.
TAP = """async () => {
    const context = new AudioContext({ sampleRate: 24000 });
    const source = `registerProcessor("tap", class extends AudioWorkletProcessor {
        constructor() { super(); this.port.onmessage = () => this.port.postMessage(null); }
        process([input]) { if (input[0]) this.port.postMessage(input[0].slice()); return true; }
    })`;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(context, "tap");
    const heard = [];
    let arrived;
    tap.port.onmessage = ({ data }) => (data ? heard.push(...data) : arrived());
    window.taken = () => new Promise((resolve) => {
        arrived = () => resolve(heard.splice(0));
        tap.port.postMessage(null);
    });
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (to, ...more) {
        if (to === context.destination) connect.call(this, tap);
        return connect.call(this, to, ...more);
    };
    window.AudioContext = function () { return context; };
}"""


BRIEF = NOISE[: len(NOISE) // 2]


def begin(page: Page) -> None:
    """Have the script spoken, and wait for its first sound."""
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Speaking…")


def briefly(_request: Any) -> Iterator[dict[str, Any]]:
    """The first half of `noise`, where all of it is heard in real time."""
    yield from itertools.islice(noise(None), N_EVENTS // 2 - 1)
    yield event(BRIEF[-3 * FRAME_SAMPLES :], STOP)


def heard_by_now(page: Page) -> np.ndarray:
    """[L] samples that have reached the loudspeaker since this was last asked, once nothing is played any more."""
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_enabled()
    return np.array(page.evaluate("taken()"))


def heard_again(page: Page) -> np.ndarray:
    """[L] samples that reach the loudspeaker when what is in the player is played once more."""
    heard_by_now(page)
    page.get_by_role("button", name="Play", exact=True).click()  # it says "Pause" from then on, until the end
    return heard_by_now(page)


@pytest.mark.parametrize("pause_seconds", [0.0, 0.4])  # 0.4: the samples run out before more come
def test_every_sample_is_heard_once_and_in_order(page: Page, manager: FakeManager, pause_seconds: float):
    manager.script, manager.pause_seconds = briefly, pause_seconds
    page.evaluate(TAP)
    speak(page)
    heard = heard_by_now(page)
    played = np.flatnonzero(heard)
    assert np.array_equal(heard[played], BRIEF / 32768)
    heard = heard_again(page)
    played = np.flatnonzero(heard)
    assert played[-1] - played[0] == len(BRIEF) - 1  # without a gap, since all of it is there


@pytest.mark.parametrize("speed", [pytest.param("0.5", marks=pytest.mark.slow), "2"])
def test_another_speed_keeps_the_pitch(page: Page, manager: FakeManager, speed: str):
    """A tone of 200 Hz stays one, and lasts as much longer or shorter."""
    tone = np.rint(8000 * np.sin(2 * np.pi * 200 * np.arange(25 * FRAME_SAMPLES) / SAMPLE_RATE)).astype(np.int16)
    manager.script = lambda _: [event(tone, {"type": "stop"})]
    page.evaluate(TAP)
    speak(page)
    choose(page, page.get_by_role("button", name="1×"), f"{speed}×")
    heard = heard_again(page)
    loud = np.flatnonzero(np.abs(heard) > 0.01)
    heard = heard[loud[0] : loud[-1]]
    assert len(heard) == pytest.approx(len(tone) / float(speed), rel=0.05)
    peak = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))).argmax() * SAMPLE_RATE / len(heard)
    assert peak == pytest.approx(200, abs=3)


def test_volume_and_mute_change_what_is_heard_and_outlive_a_reload(page: Page, manager: FakeManager):
    manager.script = briefly
    page.evaluate(TAP)
    speak(page)
    page.get_by_label("Volume").fill("50")
    heard = heard_again(page)
    assert np.allclose(heard[np.flatnonzero(heard)], BRIEF / 65536)
    page.get_by_role("button", name="Mute").click()
    expect(page.get_by_role("button", name="Unmute")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Volume")).to_have_value("50")


def test_the_file_has_what_was_heard_and_nothing_is_spoken_for_it(page: Page, manager: FakeManager):
    speak(page)
    assert np.array_equal(heard_samples(page), NOISE)
    assert np.array_equal(decoded("flac", downloaded(page, "FLAC").read_bytes(), SAMPLE_RATE), NOISE)
    for label in ("MP3", "Opus", "M4A (AAC)"):
        assert len(downloaded(page, label).read_bytes()) > 10_000
    assert len(manager.requests) == 1


def test_figures_are_for_who_asks_for_them(page: Page, manager: FakeManager):
    expect(page.locator("#figures")).to_be_hidden()
    open_panel(page, "Settings").get_by_label("Show figures").check()
    speak(page)
    expect(page.locator("#length")).to_have_text(f"{len(NOISE) / SAMPLE_RATE:.2f} s")
    expect(page.locator("#first-sound")).to_contain_text("ms")
    expect(page.locator("#rtf")).to_contain_text("×")
    expect(page.locator("#finish")).to_have_text("stop")
    expect(page.locator("#seed")).to_have_text(str(manager.requests[0].sampling_params["sampling_seed"]))


def test_the_waveform_grows_and_is_a_slider(page: Page):
    expect(page.locator("#waveform")).to_be_hidden()
    speak(page)
    slider = page.get_by_role("slider", name="Position")
    page.get_by_role("button", name="Pause", exact=True).or_(
        page.get_by_role("button", name="Play", exact=True)
    ).click()
    page.get_by_role("button", name="Play", exact=True).wait_for()
    box = slider.bounding_box()
    assert box
    slider.click(position={"x": box["width"] / 2, "y": 40})
    assert float(slider.get_attribute("aria-valuenow") or 0) == pytest.approx(len(NOISE) / SAMPLE_RATE / 2, abs=0.1)
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuenow", "0.0")
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuenow", f"{len(NOISE) / SAMPLE_RATE:.1f}")


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_stop_ends_the_generation_and_keeps_what_came(page: Page, manager: FakeManager, way: str):
    manager.script = lambda _: (event(frames_of(1_000 + i % 1_000)) for i in itertools.count())
    manager.pause_seconds = 0.05
    begin(page)
    assert not manager.closed
    if way == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    wait_for(lambda: len(manager.closed) == 1)
    expect(page.locator("#status")).to_have_text("Stopped.")
    came = heard_samples(page)
    assert len(came) >= 3 * FRAME_SAMPLES
    assert np.array_equal(came, np.concatenate([frames_of(1_000 + i) for i in range(len(came) // FRAME_SAMPLES // 3)]))
    expect(open_panel(page, "Takes").get_by_role("listitem")).to_contain_text("Stopped")


def test_a_refusal_is_shown_and_the_last_speech_kept(page: Page, manager: FakeManager):
    speak(page)
    manager.script = lambda _: [BadText("text: no such words")]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("No such words")
    assert np.array_equal(heard_samples(page), NOISE)


def test_a_failure_in_the_middle_is_shown_and_its_beginning_kept(page: Page, manager: FakeManager):
    manager.script = lambda _: [event(frames_of(500)), MossError("the codec failed")]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The codec failed")
    assert np.array_equal(heard_samples(page), frames_of(500))


def test_a_speech_that_was_cut_says_so(page: Page, manager: FakeManager):
    manager.script = lambda _: [event(frames_of(500), {"type": "length", "length": 3})]
    speak(page)
    expect(page.get_by_role("alert")).to_contain_text("came to its length limit")
    expect(open_panel(page, "Takes").get_by_role("listitem")).to_contain_text("Cut")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(429, "queue_full", "The server is full. Try again in 7 s."), (503, None, "Busy Try again in 7 s.")],
)
def test_a_busy_server_says_when_to_come_again(page: Page, status: int, code: str | None, said: str):
    body = json.dumps({"error": {"message": "busy", "code": code}})
    page.route("**/audio/speech", lambda route: route.fulfill(status=status, body=body, headers={"Retry-After": "7"}))
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text(said)


def test_errors_go_when_their_cause_goes(page: Page, manager: FakeManager):
    alert = page.get_by_role("alert")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(alert).to_contain_text("There is nothing to say yet")
    page.get_by_label("Words of turn 1").fill("Now there is.")
    expect(alert).to_be_hidden()

    settings = open_panel(page, "Settings")
    settings.get_by_text("More settings").click()
    settings.get_by_label("Top-p").fill("3")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(alert).to_have_text("A setting is out of range.")
    settings.get_by_label("Top-p").fill("0.7")
    expect(alert).to_be_hidden()

    manager.script = lambda _: [BadText("text: no such words")]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(alert).to_have_text("No such words")
    page.get_by_label("Words of turn 1").fill("Such words.")
    expect(alert).to_be_hidden()

    manager.script = lambda _: [MossError("the codec failed")]
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_role("button", name="Close this message").click()
    expect(alert).to_be_hidden()


def test_a_server_that_is_gone_is_said_to_be(page: Page):
    page.route("**/audio/speech", lambda route: route.abort())
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_settings_are_sent_as_written_and_checked(page: Page, manager: FakeManager):
    panel = open_panel(page, "Settings")
    panel.get_by_text("More settings").click()
    settings = {"Temperature": "0.5", "Top-p": "0.8", "Top-k": "20", "Repetition penalty": "1.3", "Seed": "7"}
    for label, value in settings.items():
        panel.get_by_label(label, exact=True).fill(value)
    panel.get_by_label("Instruction").fill("Whisper")
    panel.get_by_label("At most, seconds").fill("4")
    panel.get_by_label("Normalise").uncheck()
    speak(page)
    request = manager.requests[0]
    assert request.text.startswith("${instruction:Whisper}[S1] Did you hear that?")
    expected = {"temperature": 0.5, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.3, "sampling_seed": 7}
    assert request.sampling_params.items() >= (expected | {"max_new_tokens": 50}).items()
    open_panel(page, "Voices")
    page.evaluate("document.querySelector('#set-top-p').value = '3'")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(panel.get_by_label("Top-p")).to_be_focused()  # its panel has come into sight
    panel.get_by_label("Top-p").fill("")
    panel.get_by_label("Instruction").fill("} out")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("a brace would end it")
    expect(panel.get_by_label("Instruction")).to_be_focused()
    assert len(manager.requests) == 1


def test_presets_set_what_is_drawn_and_show_when_it_is_ones_own(page: Page, manager: FakeManager):
    panel = open_panel(page, "Settings")
    panel.get_by_label("Steady").check()
    panel.get_by_text("More settings").click()
    expect(panel.get_by_label("Temperature")).to_have_value("0.8")
    speak(page)
    assert manager.requests[0].sampling_params.items() >= {"temperature": 0.8, "top_p": 0.85, "top_k": 30}.items()
    panel.get_by_label("Temperature").fill("0.9")
    expect(panel.get_by_label("Your own")).to_be_checked()
    panel.get_by_role("button", name="Defaults").click()
    expect(panel.get_by_label("Usual")).to_be_checked()
    expect(panel.get_by_label("Temperature")).to_have_value("")


def test_the_servers_name_and_load_are_shown(page: Page):
    loads = {"loads": [{"num_running_reqs": 2, "num_waiting_reqs": 3}, {"num_running_reqs": 1, "num_waiting_reqs": 0}]}
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "/models/some-model"}]}))
    page.route("**/v1/loads*", lambda route: route.fulfill(json=loads))
    expect(page.locator("#server")).to_be_hidden()  # this one tells nothing
    page.reload()
    expect(page.locator("#server")).to_contain_text("some-model")
    expect(page.locator("#server")).to_contain_text("3 speaking, 3 waiting")


def test_a_voice_that_speaks_is_silent_once_its_speech_begins(page: Page, address: str):
    store_voice(address, "alice", seconds=50)
    page.reload()
    page.get_by_role("button", name="Play alice").click()
    expect(page.get_by_role("button", name="Stop alice")).to_be_visible()
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("button", name="Play alice")).to_be_visible()


@pytest.mark.parametrize(("status", "tells_models"), [(None, True), (502, True), (None, False)])
def test_a_server_that_comes_back_is_asked_for_its_voices(
    page: Page, address: str, status: int | None, tells_models: bool
):
    """It is gone, or the proxy in front of it says so; then it is there with other voices."""
    state: dict[str, Any] = {"is_away": False}

    def models(route: Route) -> None:
        if not state["is_away"] and not tells_models:
            route.fulfill(status=404, json={})
        elif not state["is_away"]:
            route.fulfill(json={"data": [{"id": "some-model"}]})
        elif status is None:
            route.abort()
        else:
            route.fulfill(status=status, body="Bad Gateway")

    page.route("**/v1/models", models)
    page.route("**/v1/loads*", lambda route: route.fulfill(json={"loads": []}))
    store_voice(address, "alice")
    page.reload()
    page.get_by_label("Voice of speaker 1").select_option("alice")
    state["is_away"] = True
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#server")).to_contain_text("cannot be reached")
    assert httpx.delete(f"{address}v1/audio/voices/alice", timeout=60).status_code == 200
    store_voice(address, "bob")
    state["is_away"] = False
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("button", name="Play bob")).to_be_visible()
    expect(page.locator("#casting-trouble")).to_contain_text("“alice”, is not on this server")
