"""What the server refuses has a code, and the page says it in its reader's language."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fake_manager import FakeManager, event, frames_of
from page_browser import open_panel, store_voice, write
from playwright.sync_api import Page, Route, expect
from sound_files import RATE, tone_file

from sglang_moss.audio.wav import wav_bytes
from sglang_moss.errors import BadText, MossError

pytestmark = pytest.mark.wide

SILENT = wav_bytes(np.zeros(RATE, np.int16), RATE)
TOO_LONG = "[S1] " + "So many words. " * 15_000  # four hours


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param({"input": "[S1] One. [S7] Seven."}, "unknown_speaker", id="speaker"),
        pytest.param({"input": "[S1] ... [S2] !"}, "no_words", id="no words"),
        pytest.param({"input": "[S1] One <|im_end|> two.", "normalize": False}, "control_token", id="token"),
        pytest.param({"input": "One: yes.\nTwo: no.\nOne: well."}, "names_as_tags", id="names"),
        pytest.param({"input": TOO_LONG}, "script_too_long", id="long"),
        pytest.param({"instruction": "} out"}, "brace", id="brace"),
        pytest.param({"max_seconds": 1e6}, "too_many_seconds", id="seconds"),
        pytest.param({"voices": {"S1": "nobody"}}, "unknown_voice", id="voice"),
        pytest.param({"voices": {"S2": "alice"}}, "voices_gap", id="gap"),
        pytest.param({"voices": {"S1": "alice"}, "mode": "generation"}, "mode_misfit", id="mode"),
        pytest.param({"voices": {"S1": "mute"}, "mode": "continuation"}, "transcript_missing", id="transcript"),
        pytest.param({"colour": "blue"}, "bad_setting", id="field"),
        pytest.param({"quality": "good"}, "field_not_taken", id="other model's"),
    ],
)
def test_a_request_that_is_refused_has_a_code(server: httpx.Client, address: str, fields: dict[str, Any], code: str):
    store_voice(address, "alice")
    form = {"data": {"name": "mute"}, "files": {"audio": tone_file(1.5)}}
    assert server.post("v1/audio/voices", **form).status_code == 201
    answer = server.post("v1/audio/speech", json={"input": "[S1] One. [S2] Two.", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("clip", "text", "code"),
    [
        pytest.param(b"no sound", "", "clip_unreadable", id="unreadable"),
        pytest.param(SILENT, "", "clip_silent", id="silent"),
        pytest.param(tone_file(0.01), "", "clip_too_short", id="short"),
        pytest.param(tone_file(61), "", "clip_too_long", id="long"),
        pytest.param(tone_file(1.5), "[S1] One. [S2] Two.", "transcript_speaker", id="speakers"),
        pytest.param(tone_file(1.5), "...", "transcript_empty", id="no words"),
        pytest.param(tone_file(1.5), "So many. " * 2_000, "transcript_too_long", id="long transcript"),
    ],
)
@pytest.mark.usefixtures("address")
def test_a_voice_that_is_refused_has_a_code(server: httpx.Client, clip: bytes, text: str, code: str):
    answer = server.post("v1/audio/voices", data={"name": "new", "text": text}, files={"audio": clip})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def answers(**fields: Any) -> Callable[[Route], None]:
    return lambda route: route.fulfill(**fields)


def test_a_chinese_page_says_them_in_chinese(page: Page, manager: FakeManager):
    page.locator("#language").select_option("zh")
    alert = page.locator("#problem-words")
    speak = page.get_by_role("button", name="合成", exact=True)

    page.get_by_role("button", name="清空").click()
    page.locator(".words").first.fill("一、二、[S7] 三。")
    speak.click()
    expect(alert).to_have_text("说话人只能是 [S1] 到 [S5]：请修改文中的标签。")
    page.locator(".words").first.fill("一、二、三。")
    for answered, said in (
        ({"status": 429, "json": {"error": {"message": "full", "code": "queue_full"}}}, "服务器已满。"),
        ({"status": 400, "json": {"error": {"message": "text: no"}}}, "服务器拒绝了请求：No"),
        ({"status": 502, "body": "Bad gateway"}, "服务器返回 502。"),
    ):
        page.route("**/audio/speech", answers(**answered))
        speak.click()
        expect(alert).to_have_text(said)
        page.unroute("**/audio/speech")
    manager.script = lambda _: [event(frames_of(500)), MossError("the codec failed")]
    speak.click()
    expect(alert).to_have_text("服务器出错：The codec failed")

    page.locator("#panel-voices, #tab-voices").first.evaluate("(tab) => tab.click()")
    page.locator("#add-voice summary").click()
    silent = {"name": "a.wav", "mimeType": "audio/wav", "buffer": SILENT}
    page.locator("#voice-audio").set_input_files(silent)
    page.locator("#voice-form [type=submit]").click()
    expect(page.locator("#voice-error")).to_have_text("录音里没有声音：请打开麦克风重新录制。")


def test_an_english_page_has_the_servers_own_words_where_they_say_more(page: Page, manager: FakeManager):
    write(page, "[S1] One.")
    manager.script = lambda _: [BadText("text: no such words")]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("No such words")
    manager.script = lambda _: [event(frames_of(500)), BadText("text: <b> is a token", "control_token")]
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("<b> is a token")


def test_a_microphone_that_is_not_there_or_not_allowed_is_said_to_be(page: Page):
    open_panel(page, "Voices")
    page.locator("#add-voice summary").click()
    refuse = "(name) => (navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', name)))"
    for name, said in (("NotAllowedError", "allow it"), ("NotFoundError", "No microphone")):
        page.evaluate(refuse, name)
        page.get_by_role("button", name="Record", exact=True).click()
        expect(page.locator("#voice-error")).to_contain_text(re.compile(said))
