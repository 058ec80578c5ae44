"""Hooks on the installed SGLang: each finds a target that fits its body, or else stops the process."""

import asyncio
import contextvars
import importlib.metadata
import inspect
import pkgutil
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fresh_process import in_fresh_process
from sglang.srt.managers.io_struct import GenerateReqInput
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sglang_moss import TESTED_SGLANG, hooks, plugin
from sglang_moss.hooking import CONTROLLER, HTTP, SCHEDULER, Hook, PrivateFields, check_fields, install, runs, unused
from sglang_moss.hooks import HOOKS, PRIVATE_FIELDS
from sglang_moss.request.record import RequestRecord, open_record
from sglang_moss.server_args import MossServerArgs

pytestmark = pytest.mark.wide

BODIES = {hook.body.__name__: hook.body for hook in HOOKS}
OTHER_MODEL = SimpleNamespace(delay_pattern=False)
OURS = SimpleNamespace(delay_pattern=True)
NO_PRIORITIES = {"enable_priority_scheduling": False, "default_priority_value": None}
ABSENT = Hook("sglang.srt.server_args.ServerArgs.no_such", HookType.AFTER, print, why="", remove_when="", process=HTTP)


# What SGLang passes to each target; the bodies rely on these, in this order.
PARAMETERS = {
    "Engine._launch_detokenizer_subprocesses": ["cls", "server_args", "port_args", "run_detokenizer_process_func"],
    "http_server._setup_and_run_http_server": [
        "server_args",
        "tokenizer_manager",
        "template_manager",
        "port_args",
        "scheduler_infos",
        "subprocess_watchdog",
        "execute_warmup_func",
        "launch_callback",
    ],
    "GenerateReqInput.contains_mm_input": ["self"],
    "GenerateReqInput.normalize_batch_and_arguments": ["self"],
    "TokenizerManager.generate_request": ["self", "obj", "request"],
    "Req.extend_image_inputs": ["self", "image_inputs"],
    "Scheduler.get_output_streamer_class": ["self"],
    "Scheduler.process_input_requests": ["self", "recv_reqs"],
    "Scheduler._poll_timeout_aborts": ["self"],
    "Scheduler.update_running_batch": ["self", "batch"],
    "Scheduler.abort_request": ["self", "recv_req"],
    "DataParallelController.event_loop": ["self"],
    "ReqToTokenPool.free": ["self", "req"],
}


def name_of(hook: Hook) -> str:
    return ".".join(hook.target.split(".")[-2:])


def signatures() -> dict[str, tuple[list[str], bool, bool]]:
    """Parameters of every target as SGLang looks it up, and whether it is a coroutine and an asynchronous generator."""
    found = {}
    for hook in HOOKS:
        owner_path, _, attribute = hook.target.rpartition(".")
        raw = vars(pkgutil.resolve_name(owner_path))[attribute]  # not inherited: a patch must reach every user
        function = getattr(raw, "__func__", raw)
        parameters = list(inspect.signature(function).parameters)
        asynchronous = inspect.iscoroutinefunction(function), inspect.isasyncgenfunction(function)
        found[name_of(hook)] = parameters, *asynchronous
    return found


def test_the_tested_sglang_is_the_installed_one():
    assert importlib.metadata.version("sglang") == TESTED_SGLANG


def test_every_hook_says_why_it_exists_and_when_it_may_go():
    assert len({hook.target for hook in HOOKS}) == len(HOOKS)
    for hook in HOOKS:
        assert len(hook.why.split()) > 3, hook.target
        assert len(hook.remove_when.split()) > 3, hook.target
        assert hook.kind in (HookType.BEFORE, HookType.AFTER, HookType.AROUND)
        assert hook.process in (HTTP, SCHEDULER, CONTROLLER)
    assert len({fields.owner for fields in PRIVATE_FIELDS}) == len(PRIVATE_FIELDS)
    assert all(fields.names and len(fields.why.split()) > 3 for fields in PRIVATE_FIELDS)


def test_every_target_exists_and_takes_what_its_body_expects():
    found = in_fresh_process(signatures)
    assert {name: parameters for name, (parameters, *_) in found.items()} == PARAMETERS
    for hook in HOOKS:
        parameters, is_coroutine, is_generator = found[name_of(hook)]
        leading = [] if hook.kind is HookType.BEFORE else ["the original, or its result"]
        inspect.signature(hook.body).bind(*leading, *parameters)
        assert not is_coroutine
        assert is_generator == inspect.isasyncgenfunction(hook.body), hook.target


def installed_targets(more: tuple[Hook, ...] = ()) -> set[str]:
    install(HOOKS + more)
    return set(HookRegistry._patched)


def install_twice() -> None:
    install(HOOKS)
    install(HOOKS[:1])


def patched_by_another_plugin(index: int) -> None:
    HookRegistry.register(HOOKS[index].target, lambda *_args, **_kwargs: None, HookType.AFTER)
    HookRegistry.apply_hooks()
    install(HOOKS)


def test_every_hook_is_installed():
    assert in_fresh_process(installed_targets) == {hook.target for hook in HOOKS}


def test_an_absent_target_stops_the_process_and_is_named():
    with pytest.raises(SystemExit, match=rf"not found \['{ABSENT.target}'\]; tested with {TESTED_SGLANG}"):
        in_fresh_process(installed_targets, (ABSENT,))


@pytest.mark.parametrize("index", [0, len(HOOKS) - 1])
def test_a_target_that_was_patched_before_stops_the_process_and_is_named(index):
    with pytest.raises(SystemExit, match=rf"patched before \['{HOOKS[index].target}'\], not found \[\]"):
        in_fresh_process(patched_by_another_plugin, index)
    with pytest.raises(SystemExit, match="patched before"):
        in_fresh_process(install_twice)


def register() -> tuple[set[str], bool]:
    from sglang.srt.entrypoints.engine import Engine

    plugin.register()
    return set(HookRegistry._patched), Engine.server_args_class is MossServerArgs


def register_where_our_cache_is_taken() -> None:
    from sglang.srt.mem_cache.registry import register_radix_cache_backend

    from sglang_moss.prefix_cache import build_cache

    register_radix_cache_backend("sglang_moss", build_cache)
    plugin.register()


def register_where_something_cannot_be_imported(module: str) -> None:
    sys.modules[module] = None  # type: ignore[assignment]
    plugin.register()


def test_registering_installs_everything():
    assert in_fresh_process(register) == ({hook.target for hook in HOOKS}, True)


def test_a_registration_that_fails_stops_the_process_and_says_what_failed():
    with pytest.raises(SystemExit, match=r"cannot register with SGLang .*'sglang_moss' is already registered"):
        in_fresh_process(register_where_our_cache_is_taken)


@pytest.mark.parametrize("module", ["sglang_moss.hooks", "sglang_moss.processor", "sglang.srt.entrypoints.warmup"])
def test_a_module_that_cannot_be_imported_stops_the_process(module):
    with pytest.raises(SystemExit, match=rf"cannot register with SGLang .*{module}"):
        in_fresh_process(register_where_something_cannot_be_imported, module)


def test_other_models_keep_their_detokenizer_and_their_results():
    launched = BODIES["_no_detokenizer"](lambda *args, **kwargs: (args, kwargs), type, OTHER_MODEL, 1, extra=2)
    assert launched == ((type, OTHER_MODEL, 1), {"extra": 2})
    assert BODIES["_no_detokenizer"](None, type, OURS) == ([], [])


def test_the_scheduler_of_another_model_is_left_alone():
    scheduler = SimpleNamespace(server_args=OTHER_MODEL)
    assert BODIES["_get_output_streamer_class"](dict, scheduler) is dict
    assert BODIES["_process_input_requests"](None, scheduler) is None
    assert BODIES["_abort_request"](None, scheduler, None) is None
    assert BODIES["_update_running_batch"](lambda *args: args, scheduler, "batch") == (scheduler, "batch")


@pytest.mark.parametrize("ours", [True, False])
def test_requests_are_touched_only_where_our_model_is_served(monkeypatch, ours):
    monkeypatch.setattr(hooks, "_served_here", lambda: ours)
    monkeypatch.setattr(hooks, "_server_args", lambda: OURS)
    prepared: list[Any] = []
    monkeypatch.setattr(hooks.generate_body, "prepare", prepared.append)
    monkeypatch.setattr(hooks.generate_body, "give_priority", lambda request, args: prepared.append((request, args)))
    BODIES["_normalize"]("request")
    assert prepared == ["request", ("request", OURS)] * ours
    assert BODIES["_contains_mm_input"](False, "request") is ours
    assert BODIES["_contains_mm_input"](True, "request") is True


def test_answers_of_another_model_pass_as_they_are():
    answers = [{"meta_info": {"speech": [{"seed": 1}]}}, [{"text": "x"}]]

    async def stock(_manager, *_args, **_kwargs):
        for answer in answers:
            yield answer

    async def passed() -> list[Any]:
        manager = SimpleNamespace(server_args=OTHER_MODEL)
        return [answer async for answer in BODIES["_generate_request"](stock, manager, "body")]

    assert asyncio.run(passed()) == answers


def test_a_batch_claims_a_place_for_each_of_its_texts(monkeypatch):
    monkeypatch.setattr(hooks, "_served_here", lambda: True)
    monkeypatch.setattr(hooks, "_server_args", lambda: SimpleNamespace(**NO_PRIORITIES))
    claimed: list[int] = []

    def claim_for(**fields: Any) -> None:
        open_record(RequestRecord(claim=claimed.append))
        BODIES["_normalize"](GenerateReqInput(**fields))

    context = contextvars.copy_context()
    context.run(claim_for, text="[S1] a")
    context.run(claim_for, text="[S1] a", sampling_params={"n": 3})
    context.run(claim_for, text=["[S1] a", "[S1] b"])
    context.run(claim_for, input_ids=[0], rid="HEALTH_CHECK_1")
    assert claimed == [1, 3, 2]


def test_a_freed_slot_is_told_to_requests_with_speech_alone():
    freed: list[Any] = []
    waits, speaks = SimpleNamespace(on_slot_freed=None), SimpleNamespace(on_slot_freed=freed.append)
    requests = [SimpleNamespace(), SimpleNamespace(speech=waits), SimpleNamespace(speech=speaks)]
    for req in requests:
        assert BODIES["_free_slot"](None, req) is None
    assert freed == requests[2:]


def runs_of_called_hooks() -> tuple[dict[str, int], list[str], list[str]]:
    """Runs after two of the hooks' targets have been called, and what is unused then."""
    from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

    plugin.register()
    pool = ReqToTokenPool(size=1, max_context_len=2, device="cpu", enable_memory_saver=False)
    for _ in range(2):
        req: Any = SimpleNamespace(kv=SimpleNamespace(req_pool_idx=1, holds_kv=True))
        pool.free(req)
    other = Hook(f"{ReqToTokenPool.__module__}.other", HookType.AFTER, print, "", "", SCHEDULER)
    freeing = next(hook for hook in HOOKS if hook.target.endswith("ReqToTokenPool.free"))
    seen = {HTTP: {}, SCHEDULER: runs()}
    return runs(), unused([freeing, other], seen), unused([freeing], {HTTP: runs(), SCHEDULER: {}})


def test_runs_are_counted_by_process_and_a_hook_that_has_not_run_is_found():
    counted, without_other, in_the_wrong_process = in_fresh_process(runs_of_called_hooks)
    assert counted == {"sglang.srt.mem_cache.memory_pool.ReqToTokenPool.free": 2}
    assert without_other == ["sglang.srt.mem_cache.memory_pool.other"]
    assert in_the_wrong_process == list(counted)


def test_a_private_field_that_is_gone_stops_the_process_and_is_named():
    table = (
        PrivateFields("Scheduler", ("here", "worker.runner.model"), why=""),
        PrivateFields("Req", ("rid",), why=""),
    )
    worker = SimpleNamespace(runner=SimpleNamespace(model=None))
    check_fields(table, {"Scheduler": SimpleNamespace(here=0, worker=worker), "Req": SimpleNamespace(rid=None)})
    check_fields(table, {})
    del worker.runner.model
    with pytest.raises(RuntimeError, match=rf"has no Scheduler\.worker\.runner\.model, .* tested with {TESTED_SGLANG}"):
        check_fields(table, {"Scheduler": SimpleNamespace(here=0, worker=worker)})
