"""Stored voices on disk: whole or absent, whatever happens, and never outside their folder."""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.server.errors import BadField, NoSuchVoice, VoiceConflict
from sglang_moss.server.speech.voice_store import VoiceStore, check_name

pytestmark = pytest.mark.wide

_SPAWN = multiprocessing.get_context("forkserver")


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    return VoiceStore(tmp_path / "voices", max_voices=5)


def test_a_voice_is_what_was_stored_also_for_another_server(store: VoiceStore, tmp_path: Path):
    voice = store.add("Alice", b"sound", "Good morning.", 1.5)
    for one in (store, VoiceStore(tmp_path / "voices", 5)):
        assert one.load("Alice") == (voice, b"sound")
        assert one.list_voices() == [voice]
    assert (voice.name, voice.text, voice.seconds, voice.n_bytes) == ("Alice", "Good morning.", 1.5, 5)


def test_names_differ_in_more_than_case(store: VoiceStore):
    store.add("Alice", b"1", None, 1)
    with pytest.raises(VoiceConflict, match="already"):
        store.add("aLICE", b"2", None, 1)
    assert store.load("ALICE")[1] == b"1"


def test_a_removed_voice_is_gone_and_its_name_free(store: VoiceStore, tmp_path: Path):
    store.add("alice", b"1", None, 1)
    store.remove("alice")
    for act in (store.load, store.remove):
        with pytest.raises(NoSuchVoice):
            act("alice")
    assert store.add("alice", b"2", None, 1).n_bytes == 1
    assert sorted(p.name for p in (tmp_path / "voices").iterdir()) == [".lock", "alice"]


def test_a_full_folder_takes_no_more_until_one_leaves(store: VoiceStore):
    for i in range(5):
        store.add(f"v{i}", b"1", None, 1)
    with pytest.raises(VoiceConflict, match="5 voices at most"):
        store.add("v5", b"1", None, 1)
    store.remove("v0")
    store.add("v5", b"1", None, 1)


@given(st.text(max_size=70))
def test_no_name_leads_out_of_the_folder(name: str):
    store = VoiceStore.__new__(VoiceStore)
    store._folder = Path("/voices")
    folder = store._folder_of(name)
    if folder is None:
        with pytest.raises(BadField):
            check_name(name)
    else:
        assert folder.parent == Path("/voices")
        assert os.path.normpath(folder) == str(folder)
        assert not folder.name.startswith(".")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        ".lock",
        "a\0",
        "a\n",
        "a" * 65,
        "a ",
        "语" * 65,
        "=a",
        "=" + "0" * 32,
        "a\u200bb",
        "\u0301a",
        "a\u202eb",
        "\ud800",
        "℀",
        "a／b",
        "．．",
        "小 ",
        "😀",
        "a\u2028b",
        "~a",
        "a%2fb",
    ],
)
def test_bad_names_are_refused_everywhere(store: VoiceStore, name: str):
    with pytest.raises(BadField, match="name"):
        store.add(name, b"1", None, 1)
    for act in (store.load, store.remove):
        with pytest.raises(NoSuchVoice):
            act(name)


def test_the_default_voice_cannot_be_replaced(store: VoiceStore):
    for name in ("Default", "ＤＥＦＡＵＬＴ"):
        with pytest.raises(BadField, match="no voice at all"):
            store.add(name, b"1", None, 1)


NAMES = ["小明", "Jürgen", "Мария", "سارة", "आशा", "さくら 2", "김민준", "Zoë_2.a", "ﬁona", "Łódź", "语" * 64, "𠮷野"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_of_any_script(store: VoiceStore, tmp_path: Path, name: str):
    voice = store.add(name, b"1", "Text.", 1)
    assert store.load(name) == (voice, b"1")
    assert VoiceStore(tmp_path / "voices", 5).list_voices() == [voice]
    assert all(entry.name.isascii() and len(entry.name) < 70 for entry in (tmp_path / "voices").iterdir())
    store.remove(name)
    assert store.list_voices() == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("Jürgen", "Ju\u0308rgen"), ("JÜRGEN", "jürgen"), ("ＡＢ", "ab"), ("straße", "STRASSE"), ("ﬁona", "fiona")],
)
def test_names_that_look_the_same_are_one(store: VoiceStore, one: str, other: str):
    store.add(one, b"1", None, 1)
    assert store.load(other)[1] == b"1"
    with pytest.raises(VoiceConflict, match="already"):
        store.add(other, b"2", None, 1)
    store.remove(other)
    with pytest.raises(NoSuchVoice):
        store.load(one)


@pytest.mark.parametrize("name", ["alice", "小明"])
def test_a_voice_is_replaced_or_made(store: VoiceStore, tmp_path: Path, name: str):
    first, is_new = store.put(name, b"1", "One.", 1)
    assert is_new
    for i in range(3):
        voice, is_new = store.put(name.upper(), b"2" * i, "Two.", 2)
        assert not is_new
        assert store.load(name) == (voice, b"2" * i)
        assert store.about(name) == voice
    assert VoiceStore(tmp_path / "voices", 5).list_voices() == [voice]
    assert first != voice
    (folder,) = (entry for entry in (tmp_path / "voices").iterdir() if not entry.name.startswith("."))
    assert len(list(folder.iterdir())) == 2
    store.remove(name)
    with pytest.raises(NoSuchVoice):
        store.about(name)


def test_a_full_folder_still_replaces(store: VoiceStore):
    for i in range(5):
        store.put(f"v{i}", b"1", None, 1)
    with pytest.raises(VoiceConflict, match="5 voices at most"):
        store.put("v5", b"1", None, 1)
    assert not store.put("v4", b"2", None, 1)[1]


def test_who_loads_while_a_voice_is_replaced_gets_one_or_the_other(store: VoiceStore):
    """The clip's length says which transcript belongs to it."""
    store.put("alice", b"0", "0", 0)
    done = threading.Event()
    seen: list[str] = []

    def load() -> None:
        while not done.is_set():
            voice, audio = store.load("alice")
            assert audio.decode() == voice.text
            seen.append(str(voice.text))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(load) for _ in range(2)]
        i = 0
        while i < 60 or len(set(seen)) < 2:
            store.put("alice", str(i).encode(), str(i), 1)
            i += 1
            if any(reader.done() for reader in readers):  # it has failed
                break
        done.set()
        for reader in readers:
            reader.result()
    assert len(set(seen)) > 1


def replace_for_ever(folder: str) -> None:
    store, i = VoiceStore(Path(folder), 10), 0
    while True:
        store.put("alice", b"x" * i, str(i), 1)
        i += 1


def test_servers_killed_while_replacing_leave_a_whole_voice(tmp_path: Path):
    folder = tmp_path / "voices"
    for _ in range(5):
        writer = _SPAWN.Process(target=replace_for_ever, args=(str(folder),))
        writer.start()
        deadline = time.monotonic() + 60
        while not (folder / "alice" / "voice.json").exists() or time.monotonic() % 1 > 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.003)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        voice, audio = VoiceStore(folder, 10).load("alice")
        assert len(audio) == int(voice.text or "-1") == voice.n_bytes
    VoiceStore(folder, 10).put("alice", b"x", "1", 1)
    assert len(list((folder / "alice").iterdir())) == 2


def test_leftovers_of_a_killed_server_are_never_served_and_cleaned(store: VoiceStore, tmp_path: Path):
    folder = tmp_path / "voices"
    store.add("alice", b"1", None, 1)
    for name in (".new-abc", ".old-abc"):
        (folder / name).mkdir()
        (folder / name / "audio").write_bytes(b"half")
    (folder / "foreign").mkdir()  # somebody else's: left alone, and no voice
    assert [v.name for v in store.list_voices()] == ["alice"]
    again = VoiceStore(folder, 5)
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "alice", "foreign"]
    with pytest.raises(NoSuchVoice):
        again.load("foreign")


def add_for_ever(folder: str, prefix: str) -> None:
    store, i = VoiceStore(Path(folder), 100_000), 0
    while True:
        store.add(f"{prefix}{i}", b"x" * 50_000, "text", 1)
        if i % 3 == 0:
            store.remove(f"{prefix}{i}")
        i += 1


def test_servers_killed_while_writing_leave_whole_voices_only(tmp_path: Path):
    folder = tmp_path / "voices"
    for round_ in range(3):
        writers = [_SPAWN.Process(target=add_for_ever, args=(str(folder), f"r{round_}w{i}n")) for i in range(2)]
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 60
        while len(list(folder.glob(f"r{round_}*"))) < 5 + len(writers):  # each may be about to remove one
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
    store = VoiceStore(folder, 100_000)
    voices = store.list_voices()
    assert {voice.name.lower() for voice in voices} == {p.name for p in folder.iterdir()} - {".lock"}
    assert len(voices) >= 15
    for voice in voices:
        assert store.load(voice.name) == (voice, b"x" * 50_000)


def test_of_two_uploads_of_one_name_one_wins(tmp_path: Path):
    stores = [VoiceStore(tmp_path / "voices", 1000) for _ in range(8)]
    start = threading.Barrier(8)

    def add(i: int) -> bool:
        start.wait()
        try:
            stores[i].add("alice", bytes([i]), None, 1)
        except VoiceConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(add, range(8)))
    assert won.count(True) == 1
    assert stores[0].load("alice")[1] == bytes([won.index(True)])
