"""The script on the page: written, pasted, moved, undone, read from files, sent to others."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_manager import FakeManager, event, frames_of
from page_browser import choose, open_panel, speak, turns_of, write
from playwright.sync_api import Locator, Page, expect
from waiting import wait_for

pytestmark = pytest.mark.wide

SCREENPLAY = """INT. KITCHEN - NIGHT

Maya enters with a bag.

MAYA
(whispering)
Is he
asleep?

TOM (O.S.)
No.
"""
SRT = """1
00:00:01,000 --> 00:00:02,500
Anna: This is one

2
00:00:02,600 --> 00:00:04,000
sentence.

3
00:00:07,000 --> 00:00:08,000
<i>Ben: Late.</i>
"""
VTT = """WEBVTT

00:01.000 --> 00:02.000
<v Anna>Hello.

00:03.500 --> 00:05.000
- Hi.
- Ho.
"""


def paste(page: Page, text: str, turn: int = 1) -> None:
    """Paste into a turn, as from the clipboard."""
    paste_into(page.get_by_label(f"Words of turn {turn}"), text)


def paste_into(field: Locator, text: str) -> None:
    field.focus()
    field.evaluate(
        """(field, text) => {
            const data = new DataTransfer();
            data.setData("text", text);
            const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
            if (field.dispatchEvent(event)) document.execCommand("insertText", false, text);
        }""",
        text,
    )


def open_file(page: Page, name: str, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    with page.expect_file_chooser() as chooser:
        choose(page, page.get_by_role("button", name="File"), "Open text")
    chooser.value.set_files({"name": name, "mimeType": "text/plain", "buffer": data})


def names_of(page: Page) -> list[str]:
    open_panel(page, "Voices")
    return [field.input_value() for field in page.locator("#casting input").all()]


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


DIALOGUES = [
    ("Alice: Hi.\nBob: Ho.\nAlice: Bye.", [("1", "Hi."), ("2", "Ho."), ("1", "Bye.")], ["Alice", "Bob"]),
    ("**Alice:** Hi.\n\n**Bob:** Ho,\nhe said.", [("1", "Hi."), ("2", "Ho, he said.")], ["Alice", "Bob"]),
    ("小雨：你好。\n大林：你好！", [("1", "你好。"), ("2", "你好！")], ["小雨", "大林"]),
    ("Speaker 2: Hi.\nSpeaker 1: Ho.", [("2", "Hi."), ("1", "Ho.")], ["", ""]),
    (SCREENPLAY, [("1", "Is he asleep?"), ("2", "No.")], ["Maya", "Tom"]),
]


def test_a_dialogue_is_pasted_as_turns(page: Page):
    for text, turns, names in DIALOGUES:
        choose(page, page.get_by_role("button", name="File"), "New project")
        paste(page, text)
        assert turns_of(page) == turns
        assert names_of(page) == names


def test_a_dialogue_is_pasted_into_the_text_with_tags(page: Page):
    page.get_by_role("button", name="Edit as text").click()
    text = page.get_by_label("Script with speaker tags")
    text.fill("[S1] Before.")
    paste_into(text, "Alice: Hi.\nBob: Ho.\nAlice: Bye.")
    expect(text).to_have_value("[S1] Before.\n[S1] Hi.\n[S2] Ho.\n[S1] Bye.")
    assert names_of(page) == ["Alice", "Bob"]
    paste_into(text, "\n".join(f"{name}: Hi." for name in ("Ann", "Ben", "Cy", "Di", "Ed", "Flo")))
    expect(page.get_by_role("alert")).to_contain_text("6 speakers")
    text.fill("")
    paste_into(text, "[S2] Tags\nstay.")
    expect(text).to_have_value("[S2] Tags\nstay.")
    page.get_by_role("button", name="Edit as text").click()
    assert turns_of(page) == [("2", "Tags\nstay.")]


def test_prose_is_pasted_as_it_is(page: Page):
    for text in ("Note: one line\nand another one.", "First.\nSecond: with a colon.", "Just words."):
        page.get_by_role("button", name="Clear").click()
        paste(page, text)
        assert turns_of(page) == [("1", text)]


def test_pasted_speakers_who_are_known_keep_their_numbers(page: Page):
    choose(page, page.get_by_role("button", name="Examples"), "Podcast")
    paste(page, "Tom: One.\nAnn: Two.", turn=6)
    assert [speaker for speaker, _ in turns_of(page)[-2:]] == ["2", "3"]
    assert names_of(page) == ["Maya", "Tom", "Ann"]


def test_six_speakers_are_refused_by_name(page: Page):
    page.get_by_role("button", name="Clear").click()
    paste(page, "\n".join(f"{name}: Hi." for name in ("Ann", "Ben", "Cy", "Di", "Ed", "Flo")))
    expect(page.get_by_role("alert")).to_contain_text("6 speakers (Ann, Ben, Cy, Di, Ed, Flo)")
    assert turns_of(page) == [("1", "")]
    page.get_by_label("Words of turn 1").fill("Hi.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_everything_can_be_undone_and_done_again(page: Page):
    page.evaluate("performance.now = () => 0")  # letters are typed without a pause
    first = turns_of(page)
    steps = [first]

    def step() -> None:
        steps.append(turns_of(page))

    page.get_by_role("button", name="Clear").click()
    step()
    page.get_by_label("Words of turn 1").press_sequentially("Hello there")  # is one step
    step()
    choose(page, page.get_by_role("button", name="Examples"), "Podcast")
    step()
    page.get_by_label("Speaker of turn 1").select_option("3")
    step()
    page.get_by_role("button", name="Remove turn 2").click()
    step()
    page.get_by_label("Words of turn 1").press("Alt+ArrowDown")
    step()
    for expected in steps[-2::-1]:
        page.keyboard.press("Control+z")
        assert turns_of(page) == expected
    expect(page.locator("#undo")).to_be_disabled()
    for expected in steps[1:]:
        page.keyboard.press("Control+Shift+Z")
        assert turns_of(page) == expected
    expect(page.locator("#redo")).to_be_disabled()


def test_settings_voices_and_names_are_undone_too(page: Page):
    page.get_by_label("Name of speaker 1").fill("Ann")
    settings = open_panel(page, "Settings")
    settings.get_by_label("Instruction").fill("Whisper")
    settings.get_by_label("Instruction").press("Control+z")
    expect(settings.get_by_label("Instruction")).to_have_value("")
    page.keyboard.press("Control+z")
    assert names_of(page) == ["", ""]


def test_what_changes_nothing_is_nothing_to_undo(page: Page):
    page.get_by_label("Words of turn 1").press("Alt+1")
    choose(page, page.get_by_role("button", name="More for turn 1"), "None")
    expect(page.locator("#undo")).to_be_disabled()


def test_what_was_cleared_is_offered_back(page: Page):
    before = turns_of(page)
    page.get_by_role("button", name="Clear").click()
    page.locator("#toast").get_by_role("button", name="Undo").click()
    assert turns_of(page) == before
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Words of turn 1").fill("New.")
    expect(page.locator("#toast")).to_be_hidden()  # it would undo this


@pytest.mark.parametrize("end", ["drop", "Escape"])
def test_a_turn_is_dragged_by_its_grip(page: Page, end: str):
    before = turns_of(page)
    row = page.locator(".turn").nth(0)
    row.hover()
    grip = row.locator(".grip").bounding_box()
    target = page.locator(".turn").nth(2).bounding_box()
    assert grip
    assert target
    page.mouse.move(grip["x"] + 4, grip["y"] + 8)
    page.mouse.down()
    page.mouse.move(grip["x"] + 4, target["y"] + 5, steps=5)
    page.mouse.move(grip["x"] + 4, target["y"] + target["height"] - 2, steps=3)
    wait_for(lambda: turns_of(page) == [*before[1:3], before[0], before[3]])
    if end == "Escape":
        page.keyboard.press("Escape")
    page.mouse.up()
    wait_for(lambda: turns_of(page) == ([*before[1:3], before[0], before[3]] if end == "drop" else before))
    expect(page.locator("#undo")).to_be_enabled(enabled=end == "drop")


def test_a_turn_is_dragged_with_a_finger(page: Page):
    before = turns_of(page)
    grip = page.locator(".turn .grip").nth(0).bounding_box()
    target = page.locator(".turn").nth(2).bounding_box()
    assert grip
    assert target
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *heights: float) -> None:
        points = [{"x": grip["x"] + grip["width"] / 2, "y": y} for y in heights]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    y, end = grip["y"] + grip["height"] / 2, target["y"] + target["height"]
    touch("touchStart", y)
    for step in range(1, 5):
        touch("touchMove", y + (end - y) * step / 4)
    touch("touchEnd")
    wait_for(lambda: turns_of(page) == [*before[1:3], before[0], before[3]])


def test_names_are_shown_where_their_speakers_speak(page: Page):
    page.get_by_label("Name of speaker 1").fill("Ann")
    expect(page.get_by_label("Speaker of turn 1").locator("option:checked")).to_have_text("Ann")
    expect(page.get_by_label("Words of turn 3, Ann")).to_be_visible()


FILES = [
    ("talk.txt", "Ann: Hi.\r\nBen: Ho.", [("1", "Hi."), ("2", "Ho.")], ["Ann", "Ben"]),
    ("prose.txt", "One\nline.\n\nAnother.", [("1", "One line."), ("1", "Another.")], [""]),
    ("film.vtt", VTT, [("1", "Hello."), ("2", "Hi."), ("3", "Ho.")], ["Anna", "", ""]),
    ("mark.txt", "Ann: Hi.\nBen: Ho.".encode("utf-16"), [("1", "Hi."), ("2", "Ho.")], ["Ann", "Ben"]),
    ("page.vtt", f"{VTT[:32]}<v A &amp; B>Salt &amp; pepper &lt;3", [("1", "Salt & pepper <3")], ["A & B"]),
    ("film.srt", SRT, [("1", "This is one sentence."), ("2", "Late.")], ["Anna", "Ben"]),
]


def test_files_are_read_as_scripts(page: Page):
    for name, content, turns, names in FILES:
        open_file(page, name, content)
        expect(page.get_by_label("Title")).to_have_value(name.split(".")[0])
        wait_for(lambda turns=turns: turns_of(page) == turns)
        assert names_of(page) == names
    # Gaps between subtitles become pauses.
    expect(page.get_by_role("button", name="Remove the pause of 3 s after turn 1")).to_be_visible()


def test_a_file_is_dropped_on_the_script(page: Page):
    page.evaluate("""() => {
        const data = new DataTransfer();
        data.items.add(new File(["Ann: Hi.\\nBen: Ho."], "talk.txt"));
        for (const type of ["dragenter", "dragover", "drop"]) {
            const event = new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
            document.querySelector("#turns").dispatchEvent(event);
        }
    }""")
    expect(page.get_by_label("Title")).to_have_value("talk")
    assert turns_of(page) == [("1", "Hi."), ("2", "Ho.")]


def test_a_file_that_is_dropped_elsewhere_does_not_take_the_place_of_the_page(page: Page):
    assert page.evaluate("""() => {
        const data = new DataTransfer();
        data.items.add(new File(["Ann: Hi."], "talk.txt"));
        const drop = (where, type) => !document.querySelector(where).dispatchEvent(
            new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
        const places = ["#dock", "header.top", "main"];
        const isRefused = places.every((where) => drop(where, "dragover") && drop(where, "drop"));
        return isRefused && !drop("#podcast-file", "drop");  // which takes files by itself
    }""")
    assert len(turns_of(page)) == 4


def test_a_file_without_words_is_refused(page: Page):
    before = turns_of(page)
    for name, content in (("a.txt", "\0\1\2"), ("b.txt", ""), ("c.txt", "   \n\n")):
        open_file(page, name, content)
        expect(page.get_by_role("alert")).to_have_text(f"{name} holds no words.")
        assert turns_of(page) == before


def test_a_file_that_is_no_script_is_refused(page: Page):
    before = turns_of(page)
    not_utf8 = "Une leçon déjà apprise".encode("latin-1")
    pdf = b"%PDF-1.4\n1 0 obj << /Length 9 >>\nstream\n\xff\xfe\xf0\x91\nendstream"
    for name, content in (("a.txt", not_utf8), ("b.pdf", pdf), ("c.txt", "你好".encode("gb18030"))):
        open_file(page, name, content)
        expect(page.get_by_role("alert")).to_contain_text(f"{name} is no text in UTF-8")
    times = '{"turns": [{"speaker": "S1", "start": 0, "end": 1, "text": "Hi."}], "seed": 1}'
    for name, content in (("a.json", times), ("b.txt", times), ("c.json", '{"kind": "moss-ttsd-project", "tur')):
        open_file(page, name, content)
        expect(page.get_by_role("alert")).to_have_text(f"{name} is no project of this page.")
    assert turns_of(page) == before


def test_a_chinese_reader_opens_what_is_in_gb18030(page: Page):
    page.get_by_role("combobox", name="Language").select_option("zh")
    content = "小雨：你好。\n大林：嗯。".encode("gb18030")
    with page.expect_file_chooser() as chooser:
        choose(page, page.get_by_role("button", name="文件"), "打开文本")
    chooser.value.set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": content})
    expect(page.locator(".words")).to_have_count(2)
    assert [field.input_value() for field in page.locator(".words").all()] == ["你好。", "嗯。"]


def fill_project(page: Page) -> list[tuple[str, str]]:
    """A project with something of everything in it."""
    choose(page, page.get_by_role("button", name="Examples"), "末班车")
    choose(page, page.get_by_role("button", name="More for turn 1"), "1 s")
    open_panel(page, "Settings").get_by_label("Instruction").fill("Whisper")
    return turns_of(page)


def check_project(page: Page, turns: list[tuple[str, str]]) -> None:
    expect(page.get_by_label("Title")).to_have_value("广播剧：末班车")
    assert turns_of(page) == turns
    expect(page.get_by_role("button", name="Remove the pause of 1 s after turn 1")).to_be_visible()
    expect(open_panel(page, "Settings").get_by_label("Instruction")).to_have_value("Whisper")
    assert names_of(page) == ["司机", "乘客"]


def test_a_project_is_saved_and_opened(page: Page):
    turns = fill_project(page)
    with page.expect_download() as download:
        choose(page, page.get_by_role("button", name="File"), "Save the project")
    assert download.value.suggested_filename == "广播剧-末班车.moss.json"
    saved = Path(download.value.path()).read_text()
    assert json.loads(saved)["kind"] == "moss-ttsd-project"
    choose(page, page.get_by_role("button", name="File"), "New project")
    assert turns_of(page) == [("1", "")]
    open_file(page, "a.json", saved)
    check_project(page, turns)


def test_a_link_holds_the_project_and_the_server_never_sees_it(page: Page, address: str):
    turns = fill_project(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, page.get_by_role("button", name="File"), "Copy a link")
    expect(page.locator("#status")).to_contain_text("The link is copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{address}#s=")
    with page.context.browser.new_context() as context:  # pyright: ignore[reportOptionalMemberAccess]
        other = context.new_page()
        other.goto(link)
        expect(other.get_by_label("Title")).to_have_value("广播剧：末班车")
        check_project(other, turns)
        expect(other).to_have_url(address)
        other.keyboard.press("Control+z")
        assert turns_of(other)[0] == ("1", "Did you hear that?")  # what stood there is not lost


def test_a_link_that_was_cut_does_no_harm(page: Page, address: str):
    for fragment in ("s=", "s=!!!", "s=AAAA", "s=" + "A" * 20_000, "other"):
        page.goto(f"{address}#{fragment}")
        page.reload()
        expect(page.locator("#speak")).to_be_enabled()
        assert len(turns_of(page)) == 4


def test_a_script_is_saved_as_text(page: Page):
    with page.expect_download() as download:
        choose(page, page.get_by_role("button", name="File"), "Save the script as text")
    assert Path(download.value.path()).read_text().startswith("[S1] Did you hear that?\n[S2] No. What was it?\n")


def test_every_example_can_be_spoken(page: Page, manager: FakeManager):
    button = page.get_by_role("button", name="Examples")
    button.click()
    titles: list[Any] = page.get_by_role("menuitem").all_inner_texts()
    page.keyboard.press("Escape")
    assert len(titles) >= 6
    manager.script = lambda _: [event(frames_of(500), {"type": "stop"})]
    for n, title in enumerate(titles, start=1):
        choose(page, button, title)
        page.get_by_role("button", name="Speak", exact=True).click()
        expect(page.locator("#heard")).to_have_text(f"Take {n}")
    assert len({request.text for request in manager.requests}) == len(titles)


def test_long_scripts_stay_quick(page: Page):
    write(page, " ".join(f"[S{1 + i % 5}] Turn {i}." for i in range(500)))
    expect(page.locator(".turn")).to_have_count(500)
    field = page.get_by_label("Words of turn 250,")
    field.press_sequentially("abc")
    expect(field).to_have_value("Turn 249.abc")
    speak(page)
