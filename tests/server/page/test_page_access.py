"""The page for everybody: keys, phones, screen readers, the dark, Chinese; and against those who mean it ill."""

import itertools
import re
from pathlib import Path
from typing import Literal, get_args

import pytest
from axe_playwright_python.sync_playwright import Axe
from fake_manager import STOP, FakeManager, event, frames_of
from page_browser import halt, noise, open_panel, served_page, speak, store_voice, turns_of, write
from playwright.sync_api import Browser, Page, expect

import sglang_moss.server.page.page
from sglang_moss.errors import Code

pytestmark = pytest.mark.wide

STATIC = Path(sglang_moss.server.page.__file__).parent / "static"
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
SIZES = {
    "phone": (390, 844),
    "narrow": (320, 640),
    "on its side": (844, 390),
    "tablet": (820, 1180),
    "desk": (1440, 900),
}
LOOKED_AT: dict[str, list[tuple[Literal["light", "dark"], str]]] = {
    "phone": [("dark", "en")],
    "narrow": [("light", "zh")],
    "desk": [("light", "en"), ("dark", "en")],
}
PANELS = ("Script", "Voices", "Takes", "Settings")


def test_all_words_are_there_in_both_languages_and_used(page: Page):
    english_words = page.evaluate("async () => (await import('./page/common/words_en.js')).EN")
    chinese_words = page.evaluate("async () => (await import('./page/common/words_zh.js')).ZH")
    assert list(english_words) == list(chinese_words)
    for key, english in english_words.items():
        chinese = chinese_words[key]
        assert re.search("[\u4e00-\u9fff]", chinese), key
        assert set(re.findall(r"\{(\w+)\}", english)) == set(re.findall(r"\{(\w+)\}", chinese)), key
    files = [file for file in STATIC.rglob("*") if file.suffix in (".js", ".html")]
    code = "".join(file.read_text() for file in files if not file.name.startswith("words_"))
    used = set(re.findall(r'"([a-z][\w.]+)"', code))
    parts = ("ended.", "error.")  # keys that are put together where they are used
    plain = [key.partition("@")[0] for key in english_words]  # behind it, the model for which it is said so
    assert [key for key in plain if key not in used and not key.startswith(parts)] == []
    assert set(plain) <= set(english_words)
    codes = {f"error.{each}" for each in get_args(Code)}
    of_the_page = {"unreachable", "status", "page", "again", "key", "refused", "broken_off"}
    assert {key for key in plain if key.startswith("error.")} == codes | {f"error.{each}" for each in of_the_page}
    asked = re.findall(r'\bt\("([^"]+)"', code) + re.findall(r'data-t(?:-\w+)?="([^"]+)"', code)
    assert set(asked) <= set(english_words)


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


def test_a_menu_is_used_by_keyboard_alone(page: Page):
    more = page.get_by_role("button", name="More for turn 2")
    more.press("Enter")
    expect(more).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitemradio", name="4 s")).to_be_focused()
    page.keyboard.press("Escape")
    expect(more).to_be_focused()
    expect(more).to_have_attribute("aria-expanded", "false")
    more.press("Enter")
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove the pause of 2 s after turn 2")).to_be_visible()


def test_a_menu_that_is_open_when_a_take_ends_gives_the_focus_back(page: Page):
    speak(page)
    open_panel(page, "Takes")
    more = page.get_by_role("button", name="More for Take 1")
    page.get_by_role("button", name="Pause Take 1", exact=True).or_(
        page.get_by_role("button", name="Play Take 1", exact=True)
    ).click()
    page.get_by_role("slider", name="Position").press("Home")
    page.evaluate("document.activeElement.blur()")
    if page.get_by_role("button", name="Play", exact=True).is_visible():
        page.keyboard.press(" ")
    more.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    expect(page.get_by_role("button", name="Play Take 1", exact=True)).to_be_visible()  # at its end
    page.keyboard.press("Escape")
    expect(more).to_be_focused()
    expect(more).to_have_attribute("aria-expanded", "false")


def test_tabs_are_changed_by_arrow_keys(page: Page):
    page.get_by_role("tab", name="Voices").press("ArrowRight")
    expect(page.get_by_role("tab", name="Takes")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Takes")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("tabpanel", name="Settings")).to_be_visible()


def test_space_plays_where_nobody_writes(page: Page, manager: FakeManager):
    manager.script = lambda _: [event(frames_of(500, 1000), STOP)]  # 80 s
    speak(page)
    halt(page)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()


def test_every_control_is_reached_by_tab(page: Page, address: str):
    store_voice(address, "alice")
    page.reload()
    speak(page)
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_enabled()  # the end of it draws the takes anew
    for panel in ("Voices", "Takes", "Settings"):
        for summary in open_panel(page, panel).locator("summary:visible").all():
            summary.click()
        wanted = page.evaluate("""() => {
            const all = "a, button, input, select, textarea, summary, canvas";
            const isOut = (each) => each.tabIndex < 0 || (each.type === "radio" && !each.checked);
            window.controls = [...document.querySelectorAll(all)];
            window.controls = controls.filter((each) => each.checkVisibility() && !each.disabled && !isOut(each));
            document.activeElement.blur();
            window.left = new Set(controls);
            addEventListener("focusin", ({ target }) => left.delete(target));
            return controls.length;
        }""")
        for _ in range(2 * wanted):
            page.keyboard.press("Tab")
        assert page.evaluate("[...left].map((each) => each.outerHTML)") == []


def test_the_page_changes_its_language_and_keeps_it(page: Page):
    write(page, "[S1] 你好。 [S2] 你好！")
    page.get_by_label("Title").fill("你好")
    speak(page)
    page.get_by_role("combobox", name="Language").select_option("zh")
    expect(page.get_by_role("button", name="合成", exact=True)).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    names = "MOSS-TTSD|Studio|English|API|Take 1|S[1-5]|Enter|Shift|Alt|Ctrl|Space|Esc"
    left = re.sub(names, "", page.inner_text("body"))
    assert not re.search("[A-Za-z]{2}", left)
    page.reload()
    expect(page.get_by_role("button", name="合成", exact=True)).to_be_visible()


def test_who_reads_chinese_begins_in_chinese(browser: Browser, address: str):
    with browser.new_context(locale="zh-CN") as context:
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_role("button", name="合成", exact=True)).to_be_visible()
        expect(page.locator(".words").first).to_have_value(re.compile("欢迎"))


def test_it_fits_and_is_accessible(page: Page, address: str):
    store_voice(address, "a" * 64)
    page.reload()
    write(page, f"[S1] {'word' * 50} [S2] Two. [S3] Three. [S4] Four. [S5] Five.")
    speak(page)
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        for name in PANELS:
            if not (tab := page.get_by_role("tab", name=name)).is_visible():
                continue
            tab.click()
            for summary in page.locator("details:not([open]) > summary:visible").all():
                summary.click()
            if page.locator("#voice-form").is_visible():
                page.locator("#voice-form [type=submit]").click()  # an error
            for language in ("zh", "en"):
                page.locator("#language").select_option(language)
                assert page.evaluate("document.documentElement.scrollWidth") == width, (size, name, language)
            for scheme, language in LOOKED_AT.get(size, ()):
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                page.locator("#language").select_option(language)
                found = Axe().run(page)
                assert found.violations_count == 0, found.generate_report()
            page.locator("#language").select_option("en")


def test_stop_and_play_are_always_in_reach(page: Page, manager: FakeManager):
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        idle = page.locator("#dock").bounding_box()
        assert idle
        assert idle["height"] < 80  # nothing made yet: one line
    manager.script = lambda _: (event(frames_of(500)) for _ in itertools.count())
    manager.pause_seconds = 0.2
    write(page, " ".join(f"[S{1 + i % 2}] Turn {i}." for i in range(40)))
    page.locator("#speak").click()
    expect(page.locator("#dock")).not_to_have_class(re.compile("idle"))
    for width, height in SIZES.values():
        page.set_viewport_size({"width": width, "height": height})
        page.locator(".words").last.scroll_into_view_if_needed()
        for control in ("Stop", "Pause"):
            box = page.get_by_role("button", name=control, exact=True).bounding_box()
            assert box
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= height
        dock = page.locator("#dock").bounding_box()
        assert dock
        assert dock["height"] < max(0.34 * height, 180)
    page.get_by_role("button", name="Stop", exact=True).click()


@pytest.mark.parametrize("is_touched", [False, True])
def test_no_control_of_the_player_is_cut_off(browser: Browser, address: str, is_touched: bool):
    """With all that can be in it: a take to update, and two to compare."""
    with browser.new_context(bypass_csp=True, has_touch=is_touched, is_mobile=is_touched) as context:
        page = context.new_page()
        page.goto(address)
        for _ in range(2):
            speak(page)
        expect(open_panel(page, "Takes").get_by_role("listitem")).to_have_count(2)
        page.get_by_label("Words of turn 1").fill("Others.")
        page.get_by_role("button", name="Compare Take 1 as A").click()
        expect(page.locator("#sides")).to_be_visible()
        expect(page.get_by_role("button", name="Update take: Speaks only what was changed, 1 turn")).to_be_visible()
        for width, height in [*SIZES.values(), (768, 1024), (700, 900), (600, 900), (360, 780), (960, 700), (667, 375)]:
            page.set_viewport_size({"width": width, "height": height})
            for language in ("zh", "en"):
                page.locator("#language").select_option(language)
                boxes = page.evaluate("""() => {
                    const all = document.querySelectorAll("#dock :is(button, input)");
                    const shown = [...all].filter((each) => each.checkVisibility());
                    return shown.map((each) => [each.id, each.getBoundingClientRect()]).map(([id, box]) => {
                        return [id, box.left, box.right, box.bottom];
                    });
                }""")
                assert {"update", "speed", "download", "pause"} <= {name for name, *_ in boxes}
                for name, left, right, bottom in boxes:
                    assert left >= 0, (width, language, name)
                    assert right <= width, (width, language, name)
                    assert bottom <= height, (width, language, name)


def test_words_of_others_are_never_html(page: Page):
    voices = {"object": "list", "data": [{"name": HOSTILE, "text": HOSTILE, "seconds": 1.0}]}
    page.route("**/audio/voices", lambda route: route.fulfill(json=voices))
    page.route("**/audio/speech", lambda route: route.fulfill(status=400, json={"error": {"message": HOSTILE}}))
    page.reload()
    write(page, f"[S1] {HOSTILE} [S2] {HOSTILE}")
    page.get_by_label("Name of speaker 1").fill(HOSTILE)
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text(HOSTILE)
    expect(page.get_by_label("Stored voices").locator(".name")).to_have_text(HOSTILE)
    page.get_by_role("button", name=f"More for {HOSTILE}").click()
    page.get_by_role("menuitem", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Cancel").click()
    page.reload()
    assert turns_of(page) == [("1", HOSTILE), ("2", HOSTILE)]
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "MOSS-TTSD Studio"


def test_the_policy_forbids_html_and_strange_scripts(browser: Browser, address: str):
    with browser.new_context() as context:
        opened = context.new_page()
        said: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.goto(address)
        speak(opened)  # under the policy, which the other tests are without
        assert not [words for words in said if "Security Policy" in words]
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
        assert page.evaluate("document.querySelector('#speak use').getBoundingClientRect().width") > 5  # its drawing


def test_a_reload_keeps_script_settings_and_voices(page: Page, address: str):
    store_voice(address, "alice")
    page.reload()
    write(page, "[S2] Kept. [S1] Also.")
    page.get_by_label("Voice of speaker 1").select_option("alice")
    page.get_by_label("Name of speaker 2").fill("Bob")
    settings = open_panel(page, "Settings")
    settings.get_by_text("More settings").click()
    settings.get_by_label("Top-k").fill("12")
    settings.get_by_label("Normalise").uncheck()
    page.reload()
    assert turns_of(page) == [("2", "Kept."), ("1", "Also.")]
    expect(settings.get_by_label("Normalise")).not_to_be_checked()  # the panel that was in sight
    settings.get_by_text("More settings").click()
    expect(settings.get_by_label("Top-k")).to_have_value("12")
    open_panel(page, "Voices")
    expect(page.get_by_label("Voice of speaker 1")).to_have_value("alice")
    expect(page.get_by_label("Name of speaker 2")).to_have_value("Bob")


LEFT_BY_OTHERS = [
    "{",
    "3",
    "null",
    '{"turns": [{"speaker": 9}], "settings": 4, "voices": [1]}',
    '{"project": {"turns": [], "names": {"1": 2, "9": "x"}}, "volume": "loud", "speed": 3, "language": "xx"}',
]


def test_what_others_left_in_the_browser_does_no_harm(page: Page):
    for saved in LEFT_BY_OTHERS:
        page.evaluate("saved => localStorage.setItem('moss-ttsd', saved)", saved)
        page.reload()
        assert len(turns_of(page)) == 4
        speak(page)


def test_what_an_earlier_version_kept_is_still_there(page: Page):
    saved = """{"turns": [{"speaker": 2, "words": "Old."}], "voices": {"2": "bob"},
        "settings": {"temperature": "", "top_k": "7", "normalize": true}}"""
    page.evaluate("saved => localStorage.setItem('moss-ttsd', saved)", saved)
    page.reload()
    assert turns_of(page) == [("2", "Old.")]
    expect(page.locator("#casting-trouble")).to_contain_text("“bob”, is not on this server")


def test_what_is_written_from_right_to_left_stands_so(page: Page, address: str):
    store_voice(address, "أحمد")
    page.reload()
    write(page, "[S1] مرحبا بكم (2024)! [S2] Hello.")
    page.get_by_label("Title").fill("שלום!")
    page.get_by_label("Name of speaker 1").fill("أحمد")
    speak(page)
    page.get_by_label("Position").press("Home")
    direction = "each => getComputedStyle(each).direction"
    assert page.locator(".words").evaluate_all(f"all => all.map({direction})") == ["rtl", "ltr"]
    open_panel(page, "Takes")
    for place in ("#title", ".cast input[data-speaker='1']", "#voices .name", "#takes .beginning"):
        assert page.locator(place).evaluate(direction) == "rtl", place


def test_whoever_needs_the_key_is_asked_for_it(page: Page):
    """A server that was started again with a key."""
    profile = page.evaluate("fetch('v1/audio/profile').then((answer) => answer.json())")
    page.route("**/audio/profile", lambda route: route.fulfill(json={**profile, "offers": ["script"]}))
    page.reload()
    page.get_by_role("button", name="From a page or PDF").click()
    refusal = {"error": {"message": "Unauthorized"}}
    for path in ("**/page/script", "**/v1/**"):
        page.route(path, lambda route: route.fulfill(status=401, json=refusal))
    page.get_by_label("Address of a web page or PDF").fill("https://example.com")
    page.get_by_role("button", name="Write the script").click()
    expect(page.locator("#podcast-error")).to_have_text("The server wants another API key.")
    page.get_by_role("button", name="Cancel").click()
    key = page.get_by_label("This server asks for an API key")
    expect(key).to_be_visible()
    page.reload()
    expect(key).to_be_focused()
    page.get_by_label("Words of turn 1").focus()
    with page.expect_response("**/v1/models"):  # what the page asks by itself takes nobody's place away
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_label("Words of turn 1")).to_be_focused()
