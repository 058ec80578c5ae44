"""`POST /page/transcript`: a clip, heard by the recogniser that is installed."""

import asyncio
import re
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_endpoints import serving, three_events
from judged_speech import SPEECH, WORDS
from sound_files import tone_file

from sglang_moss.evaluation.hear import draft
from sglang_moss.server.errors import HelperFailed
from sglang_moss.server.page import transcript
from sglang_moss.server.page.programs import run_program

pytestmark = pytest.mark.wide

CLIP = (SPEECH / "rms_reference.flac").read_bytes()
EN = {"language": "en"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    options = {"transcript_recogniser": "auto"}
    with serving(three_events, tmp_path_factory.mktemp("served"), helpers=options) as (opened, _):
        yield opened


def test_a_clip_is_heard(client: httpx.Client):
    assert client.get("/v1/audio/profile").json()["offers"] == ["transcript-en"]
    answer = client.post("/page/transcript", params=EN, content=CLIP)
    text = answer.json()["text"]
    said, heard = (set(re.findall(r"\w+", words.lower())) for words in (WORDS["rms_reference"], text))
    assert len(said & heard) >= 0.7 * len(said)
    assert re.fullmatch(r"[A-Z].*\.", text)
    assert text == draft(CLIP, "pocketsphinx", None, "en")


@pytest.mark.parametrize(
    ("language", "clip", "param"),
    [
        ("en", b"", "audio"),
        ("en", b"no sound", "audio"),
        ("zh", CLIP, "language"),
        ("", CLIP, "language"),
        ("en", tone_file(70), "audio"),
    ],
)
def test_what_cannot_be_heard_is_refused(client: httpx.Client, language: str, clip: bytes, param: str):
    answer = client.post("/page/transcript", params={"language": language}, content=clip)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_who_waits_too_long_is_told_so(client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transcript, "_SECONDS", 0.01)
    answer = client.post("/page/transcript", params=EN, content=CLIP)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "helper_failed")


def test_a_model_that_hears_nobody_in_particular_offers_none(tmp_path: Path):
    helpers = {"transcript_recogniser": "auto"}
    with serving(three_events, tmp_path, profile="sound", helpers=helpers) as (client, _):
        assert client.get("/v1/audio/profile").json()["offers"] == []
        assert client.post("/page/transcript", params=EN, content=CLIP).status_code == 404


def test_without_a_recogniser_there_is_no_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sglang_moss.server.page.helpers.find_spec", lambda _name: None)
    with serving(three_events, tmp_path, helpers={"transcript_recogniser": "auto"}) as (client, _):
        assert client.get("/v1/audio/profile").json()["offers"] == []
        assert client.post("/page/transcript", params=EN, content=CLIP).status_code == 404


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own: the browser of other tests has an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


PROGRAMS = {
    "sleeps": "import time; time.sleep(600)",
    "dies": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "fails": "import sys; sys.exit('first\\nlast')",
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in PROGRAMS.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("programs")
def test_a_program_that_is_cancelled_is_killed():
    async def leave() -> None:
        task = asyncio.create_task(run_program("sleeps", [], b"", 60))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait({task})  # which waits for the program
        assert task.cancelled()

    run(asyncio.wait_for(leave(), 60))


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(("name", "said"), [("sleeps", "more than 0.5 s"), ("dies", "has died")])
def test_a_program_that_does_not_end_well_is_a_failure(name: str, said: str):
    with pytest.raises(HelperFailed, match=said):
        run(run_program(name, [], b"", 0.5 if name == "sleeps" else 60))


@pytest.mark.usefixtures("programs")
def test_a_program_says_why_it_failed():
    ended = run(run_program("fails", [], b"", 60))
    assert (ended.status, ended.complaint) == (1, "last")
