"""The warm-up request: a server that gives no audio, or in which a hook no longer runs, does not start."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from sglang.srt.entrypoints import http_server

from sglang_moss import TESTED_SGLANG, dp_controller, hooking, warmup
from sglang_moss.hooks import HOOKS

pytestmark = pytest.mark.wide

ALL_RUN = {hook.target: 1 for hook in HOOKS}


class Manager:
    """In the place of SGLang's tokenizer manager."""

    model_config = SimpleNamespace(hf_config=SimpleNamespace())

    def __init__(self, n_frames: int, problem: Exception | None = None, dp_size: int = 1) -> None:
        self.server_args = SimpleNamespace(codec_addresses=["ipc://nowhere"] * dp_size, dp_size=dp_size)
        self.n_spoken = 0
        self.n_frames = n_frames
        self.problem = problem
        self.dispatched: list[Any] = []
        self.is_frozen = False

    async def generate_request(self, request: Any, _http_request: Any) -> AsyncIterator[dict[str, Any]]:
        assert request.sampling_params["max_new_tokens"] == 8
        if self.problem is not None:
            raise self.problem
        self.n_spoken += 1
        yield {"meta_info": {"audio_frames": self.n_frames}}

    def _dispatch_to_scheduler(self, message: Any) -> None:
        self.dispatched.append(message)

    async def freeze_gc(self) -> None:
        self.is_frozen = True


@pytest.fixture
def scheduler_runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """What the scheduler process answers, one after the other; the last one for ever, or never where there is none."""
    answers = [ALL_RUN]

    class Codec:
        def __init__(self, *_args: Any, **_kwargs: Any) -> None:
            pass

        async def hook_runs(self) -> dict[str, int]:
            if not answers:
                await asyncio.Event().wait()
            return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(warmup, "CodecPool", Codec)
    monkeypatch.setattr(hooking, "runs", lambda: ALL_RUN)
    monkeypatch.setattr(warmup, "_HOOKS_SECONDS", 0.2)
    return answers


def speak(manager: Manager) -> None:
    with patch.object(http_server, "_global_state", SimpleNamespace(tokenizer_manager=manager)):
        asyncio.run(warmup.speak_once("null", manager))


def test_a_server_that_speaks_and_runs_every_hook_starts(scheduler_runs, monkeypatch):
    monkeypatch.setattr(warmup, "_HOOKS_SECONDS", 60.0)  # it is asked several times
    at_start = {hook.target: 1 for hook in HOOKS if hook.at_start}
    # The end of a request comes to the scheduler after its answer has left.
    scheduler_runs[:0] = [{}, at_start, at_start, at_start]
    manager = Manager(8)
    speak(manager)
    [abort] = manager.dispatched
    assert abort.rid == "sglang-moss-nobody"
    assert manager.is_frozen


@pytest.mark.parametrize("n_frames", [None, 0, 7])
@pytest.mark.usefixtures("scheduler_runs")
def test_a_server_without_audio_does_not_start(n_frames):
    with pytest.raises(
        RuntimeError, match=f"the warm-up request failed: it gave {n_frames} frames of audio, expected 8"
    ):
        speak(Manager(n_frames))


@pytest.fixture(params=HOOKS, ids=lambda hook: hook.body.__name__)
def passed_by(request: pytest.FixtureRequest, scheduler_runs, monkeypatch) -> hooking.Hook:
    """The one hook that does not run."""
    hook = request.param
    runs = {target: n for target, n in ALL_RUN.items() if target != hook.target}
    monkeypatch.setattr(dp_controller, "is_settled", lambda: hook.process != hooking.CONTROLLER)
    if hook.process == hooking.SCHEDULER:
        scheduler_runs[:] = [runs]
    else:
        monkeypatch.setattr(hooking, "runs", lambda: runs)
    return hook


def test_a_hook_that_sglang_passes_by_stops_the_start_and_is_named(passed_by: hooking.Hook):
    with pytest.raises(RuntimeError, match=rf"has not called {passed_by.target}; tested with {TESTED_SGLANG}"):
        speak(Manager(8, dp_size=2))


def test_what_a_hook_breaks_that_has_not_run_is_told_by_the_hook(passed_by: hooking.Hook):
    with pytest.raises(RuntimeError, match=rf"has not called {passed_by.target}"):
        speak(Manager(None, dp_size=2))


@pytest.mark.usefixtures("scheduler_runs")
def test_every_rank_speaks(monkeypatch):
    monkeypatch.setattr(dp_controller, "is_settled", lambda: True)
    manager = Manager(8, dp_size=3)
    speak(manager)
    assert manager.n_spoken == 3


def test_a_codec_that_does_not_answer_stops_the_start(scheduler_runs):
    scheduler_runs.clear()
    with pytest.raises(RuntimeError, match=r"the codec's thread has not answered"):
        speak(Manager(8))


@pytest.mark.usefixtures("scheduler_runs")
def test_what_sglang_says_of_a_request_that_fails_is_told():
    with pytest.raises(
        RuntimeError, match=r"the warm-up request failed: it was answered by 400: .*no room for it"
    ) as e:
        speak(Manager(8, ValueError("no room for it")))
    assert "has not called" not in str(e.value)
