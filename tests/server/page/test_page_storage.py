"""What the page keeps in the browser: beside other tabs, where there is no room, and what others wrote there."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_manager import SAMPLE_RATE, FakeManager, event, frames_of
from page_browser import NOISE, choose, heard_samples, open_panel, speak, turns_of, write
from playwright.sync_api import Dialog, Locator, Page, expect

pytestmark = pytest.mark.wide

# Puts these entries into the database of takes, by store and id.
KEEP = """(entries) => new Promise((done) => {
    const opening = indexedDB.open("moss-ttsd-takes", 1);
    opening.onsuccess = () => {
        const writing = opening.result.transaction(["takes", "sound"], "readwrite");
        for (const [store, id, value] of entries) writing.objectStore(store).put(value, id);
        writing.oncomplete = () => done(opening.result.close());
    };
})"""
# Every writing fails for want of room as long as window.isFull.
FILL = """() => {
    window.isFull = true;
    const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (...value) {
        if (window.isFull) throw new DOMException("", "QuotaExceededError");
        return put.apply(this, value);
    };
}"""
REFUSE = """for (const name of ["localStorage", "sessionStorage", "indexedDB"]) Object.defineProperty(window, name, {
    get() { throw new DOMException("", "SecurityError"); },
});"""


@pytest.fixture
def other_tab(page: Page, address: str) -> Iterator[Page]:
    with page.context.new_page() as opened:
        opened.goto(address)
        yield opened


def listed(page: Page) -> Locator:
    return open_panel(page, "Takes").get_by_role("listitem")


def speak_take(page: Page, number: int) -> None:
    """Speak, however it is kept, and wait for the take."""
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#heard")).to_have_text(f"Take {number}")


def known(name: str, **fields: Any) -> dict[str, Any]:
    """What is known of a take of one turn."""
    turn = {"id": "a", "speaker": 1, "words": "Hm."}
    about = {"created": 1, "sampleRate": SAMPLE_RATE, "seconds": 1, "seed": 1, "finishReason": "stop", "figures": {}}
    project = {"title": "", "turns": [turn], "names": {}, "cast": {}, "settings": {}}
    times = [{"start": 0, "end": 1}]
    return {"id": name, "name": name, **about, "project": project, "turns": [turn], "times": times, **fields}


def test_each_tab_keeps_its_own_script(page: Page, other_tab: Page, address: str):
    write(page, "[S1] Of one tab.")
    write(other_tab, "[S1] Of the other.")
    page.reload()
    assert turns_of(page) == [("1", "Of one tab.")]
    with page.context.new_page() as third:
        third.goto(address)
        assert turns_of(third) == [("1", "Of the other.")]  # which was changed last


def test_tabs_have_the_same_takes(page: Page, other_tab: Page):
    page.bring_to_front()  # what is not in front is slow
    speak(page)
    other_tab.bring_to_front()
    expect(listed(other_tab)).to_have_count(1)
    other_tab.get_by_role("button", name="Play Take 1", exact=True).click()
    expect(other_tab.locator("#heard")).to_have_text("Take 1")
    page.bring_to_front()
    listed(page)
    choose(page, page.get_by_role("button", name="More for Take 1"), "Rename")
    page.get_by_role("dialog").get_by_role("textbox").fill("The good one")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(other_tab.locator("#heard")).to_have_text("The good one")
    choose(page, page.get_by_role("button", name="More for The good one"), "Delete")
    expect(listed(other_tab)).to_have_count(0)
    expect(other_tab.locator("#dock")).to_have_class("dock idle")
    page.locator("#toast").get_by_role("button", name="Undo").click()
    expect(listed(other_tab)).to_have_count(1)


def test_a_take_that_is_deleted_while_it_plays_is_silent(page: Page):
    speak(page)
    listed(page)
    page.get_by_role("button", name="Play Take 1", exact=True).click()
    choose(page, page.get_by_role("button", name="More for Take 1"), "Delete")
    expect(page.locator("#dock")).to_have_class("dock idle")
    page.locator("#toast").get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Play Take 1", exact=True).click()
    assert np.array_equal(heard_samples(page), NOISE)


def test_what_there_was_no_room_for_lasts_as_long_as_the_tab(page: Page):
    page.evaluate(FILL)
    for n in range(1, 7):
        speak_take(page, n)
        expect(page.get_by_role("alert")).to_contain_text("The browser has no room left to keep this take")
    expect(listed(page).get_by_text("not kept")).to_have_count(6)
    page.get_by_role("button", name="Play Take 1", exact=True).click()
    expect(page.locator("#heard")).to_have_text("Take 1")
    assert np.array_equal(heard_samples(page), NOISE)


def test_where_there_is_room_again_takes_are_kept_and_the_message_goes(page: Page):
    page.evaluate(FILL)
    for n in range(1, 4):
        speak_take(page, n)
    expect(page.get_by_role("alert")).to_contain_text("no room left")
    listed(page)
    choose(page, page.get_by_role("button", name="More for Take 1"), "Rename")  # is not kept either, with its sound
    page.get_by_role("dialog").get_by_role("textbox").fill("Mine")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    page.evaluate("window.isFull = false")
    choose(page, page.get_by_role("button", name="More for Take 3"), "Delete")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(listed(page).get_by_text("not kept")).to_have_count(0)
    page.reload()
    expect(listed(page)).to_have_count(2)
    page.get_by_role("button", name="Play Mine", exact=True).click()
    expect(page.locator("#heard")).to_have_text("Mine")
    assert np.array_equal(heard_samples(page), NOISE)


def test_a_take_whose_sound_is_lost_says_so(page: Page):
    page.evaluate(KEEP, [["takes", "lost", known("lost")]])
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("The browser has lost the sound of lost.")
    speak(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    listed(page)
    page.get_by_role("button", name="Play lost", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The browser has lost the sound of lost.")
    expect(page.locator("#heard")).to_have_text("Take 1")  # which is still in the player
    choose(page, page.get_by_role("button", name="More for lost"), "Restore its script")
    assert turns_of(page) == [("1", "Hm.")]


def test_what_is_no_take_is_left_out(page: Page):
    others: list[Any] = ["words", {"id": 5, "times": []}, {"id": "x", "name": "x", "times": []}]
    others += [known("no names", project={"turns": 3}), known("no times", times=[]), known("no rate", sampleRate="x")]
    others += [known("nobody", turns=[{"speaker": 9, "words": "Hm."}])]
    page.evaluate(KEEP, [["takes", str(i), one] for i, one in enumerate([*others, known("good")])])
    page.reload()
    expect(listed(page)).to_have_count(1)
    speak(page)
    expect(listed(page)).to_have_count(2)


def test_a_database_of_others_keeps_nothing_from_being_spoken(page: Page, address: str):
    link = page.evaluate("""async () => {
        const { linkTo } = await import("./page/script/project_file.js");
        const turns = [{ speaker: 2, words: "From a link." }];
        return linkTo({ title: "", turns, names: {}, cast: {}, settings: {} });
    }""")
    page.goto(f"{address}page/icon.svg")
    page.evaluate("""() => new Promise((done) => {
        indexedDB.deleteDatabase("moss-ttsd-takes").onsuccess = () => {
            const opening = indexedDB.open("moss-ttsd-takes", 1);
            opening.onupgradeneeded = () => opening.result.createObjectStore("other");
            opening.onsuccess = () => done(opening.result.close());
        };
    })""")
    page.goto(link)
    expect(page.get_by_label("Words of turn 1")).to_have_value("From a link.")
    speak(page)
    expect(open_panel(page, "Takes")).to_contain_text("takes are gone when the tab is closed")


def test_a_browser_that_refuses_all_storage_speaks(page: Page):
    page.add_init_script(REFUSE)
    page.reload()
    speak(page)
    assert np.array_equal(heard_samples(page), NOISE)
    expect(listed(page)).to_have_count(1)


@pytest.mark.parametrize("when", ["waiting", "speaking", "not kept"])
def test_leaving_asks_first_where_something_would_be_lost(page: Page, manager: FakeManager, when: str):
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    if when == "not kept":
        page.evaluate(FILL)
        speak(page)
    else:
        script = {"waiting": [], "speaking": [event(frames_of(500))]}[when]
        manager.script = lambda _: [*script, threading.Event()]  # which nobody sets: it ends when the page leaves
        page.get_by_role("button", name="Speak", exact=True).click()
        said = {"waiting": "Waiting for the first sound…", "speaking": "Speaking…"}[when]
        expect(page.locator("#status")).to_have_text(said)
    page.reload()
    assert asked == ["beforeunload"]
    page.reload()
    assert len(asked) == 1  # nothing is to be lost any more
    assert json.loads(page.evaluate("localStorage.getItem('moss-ttsd')"))["project"]
