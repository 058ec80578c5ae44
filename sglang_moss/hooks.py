"""Every hook into SGLang, in one table: what, why, and when it may go.

A body is thin: it calls a function of ours that is tested by itself. All of them do nothing for other models.
"""

import argparse
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sglang_moss import TESTED_SGLANG
from sglang_moss import generate_body as arrival
from sglang_moss.request.record import current_record
from sglang_moss.server_args import MossServerArgs, add_flags, is_fused, serves_speech


@dataclass(frozen=True)
class Hook:
    """One hook."""

    target: str  # dotted path in SGLang
    kind: HookType
    body: Callable[..., Any]
    why: str  # what breaks without it
    remove_when: str  # the upstream change that makes it dead code


def _add_cli_args(_result: None, parser: argparse.ArgumentParser) -> None:
    add_flags(parser)


def _from_cli_args(original: Callable[..., Any], cls: type, args: argparse.Namespace) -> Any:
    ours = args.delay_pattern or is_fused(args.model_path)
    return original(MossServerArgs if ours else cls, args)


def _no_detokenizer(original: Callable[..., Any], cls: type, server_args: Any, *args: Any, **kwargs: Any) -> Any:
    return ([], []) if serves_speech(server_args) else original(cls, server_args, *args, **kwargs)


def _contains_mm_input(result: bool, _request: Any) -> bool:
    return result or _served_here()


def _normalize(request: Any) -> None:
    if _served_here():
        arrival.prepare(request)
        claim = current_record().claim
        if claim is not None and request.text is not None:  # else a health check
            claim(len(request.text) if isinstance(request.text, list) else 1)


async def _generate_request(
    original: Callable[..., AsyncGenerator[Any, None]], manager: Any, *args: Any, **kwargs: Any
) -> AsyncGenerator[Any, None]:
    if serves_speech(manager.server_args):
        from sglang_moss.tokenizer_answers import speech_answers

        answers = speech_answers(original, manager, *args, **kwargs)
    else:
        answers = original(manager, *args, **kwargs)
    # Closed as soon as the caller goes away, and not when the garbage is collected.
    async with aclosing(answers):
        async for answer in answers:
            yield answer


def _extend_image_inputs(_result: None, req: Any, multimodal_inputs: Any) -> None:
    if _served_here():
        from sglang_moss.request.speech import attach_progress

        attach_progress(multimodal_inputs, req)


def _init_output_streamer(_result: None, scheduler: Any) -> None:
    if serves_speech(scheduler.server_args):
        from sglang_moss.output_streamer import attach_codec

        attach_codec(scheduler)


def _collect_customized_info(
    original: Callable[..., None], processor: Any, i: int, req: Any, logits_output: Any
) -> None:
    if not serves_speech(processor.server_args):
        return original(processor, i, req, logits_output)
    if logits_output is not None and logits_output.customized_info is not None:
        processor.output_streamer.row_accepted(req, logits_output.customized_info, i)
    return None


def _process_input_requests(_result: None, scheduler: Any, *_args: Any) -> None:
    if serves_speech(scheduler.server_args):
        scheduler.output_streamer.tick()


def _abort_request(_result: None, scheduler: Any, request: Any) -> None:
    if serves_speech(scheduler.server_args):
        scheduler.output_streamer.abort(request.rid, request.abort_all)


def _refuse_update(original: Callable[..., Any], worker: Any, *args: Any, **kwargs: Any) -> Any:
    if serves_speech(worker.server_args):
        return False, "weights of a speech model cannot be updated while it serves; start a server with the new ones"
    return original(worker, *args, **kwargs)


def _graph_capture(original: Callable[..., Any], stream: Any = None) -> Any:
    import torch

    if stream is None and torch.cuda.is_available() and _served_here():
        stream = torch.cuda.Stream(priority=_ABOVE_THE_CODEC)
    return original(stream=stream)


def _free_slot(_pool: Any, req: Any) -> None:
    progress = getattr(req, "speech", None)
    if progress is not None and progress.on_slot_freed is not None:
        progress.on_slot_freed(req)


def _add_routes(server_args: Any, tokenizer_manager: Any, *_args: Any, **_kwargs: Any) -> None:
    if serves_speech(server_args):
        from sglang.srt.entrypoints.http_server import app

        # Its folder stands beside this package in the source tree, and in it once installed.
        from sglang_moss.server.app import add_routes  # pyright: ignore[reportMissingImports]

        add_routes(app, server_args, tokenizer_manager)


def _served_here() -> bool:
    """Whether the engine of this process serves our model."""
    from sglang.srt.runtime_context import get_server_args

    return serves_speech(get_server_args())


_ABOVE_THE_CODEC = -1  # the codec's stream has CUDA's lowest priority, 0
_SRT = "sglang.srt"
HOOKS = (
    Hook(
        f"{_SRT}.server_args.ServerArgs.add_cli_args",
        HookType.AFTER,
        _add_cli_args,
        why="--delay-pattern and its companions are unknown to `sglang serve`",
        remove_when="plugins can register command line arguments",
    ),
    Hook(
        f"{_SRT}.server_args.ServerArgs.from_cli_args",
        HookType.AROUND,
        _from_cli_args,
        why="a flag that is no field of the arguments' class is dropped",
        remove_when="`sglang serve` builds `Engine.server_args_class`",
    ),
    Hook(
        f"{_SRT}.entrypoints.engine.Engine._launch_detokenizer_subprocesses",
        HookType.AROUND,
        _no_detokenizer,
        why="an idle process of 1 GB that lengthens the start",
        remove_when="the detokenizer can be switched off by an argument",
    ),
    Hook(
        f"{_SRT}.entrypoints.http_server._setup_and_run_http_server",
        HookType.BEFORE,
        _add_routes,
        why="the speech endpoint and the voices would need a port, a key and a process of their own",
        remove_when="plugins can add routes to the server",
    ),
    Hook(
        f"{_SRT}.managers.io_struct.GenerateReqInput.contains_mm_input",
        HookType.AFTER,
        _contains_mm_input,
        why="a request without references would skip the processor, which builds its prompt",
        remove_when="a processor can ask for every request",
    ),
    Hook(
        f"{_SRT}.managers.io_struct.GenerateReqInput.normalize_batch_and_arguments",
        HookType.BEFORE,
        _normalize,
        why="with n above 1 samples share a seed and lose references; lengths of batches go unchecked; a batch "
        "would count as one request where requests are counted",
        remove_when="SGLang expands audio_data and seeds with n",
    ),
    Hook(
        f"{_SRT}.managers.tokenizer_manager.TokenizerManager.generate_request",
        HookType.AROUND,
        _generate_request,
        why="`text` of an answer needs its WAV header, and `meta_info` what it says of the audio; a client that leaves "
        "is noticed two seconds late; a failed batch leaves its other entries running; our own errors lose their "
        "sentence",
        remove_when="SGLang has a place to finish answers in, and aborts at once what nobody waits for",
    ),
    Hook(
        f"{_SRT}.managers.schedule_batch.Req.extend_image_inputs",
        HookType.AFTER,
        _extend_image_inputs,
        why="the model cannot see which request a row belongs to, nor what it has produced",
        remove_when="`ForwardBatch` carries the requests",
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler.init_output_streamer",
        HookType.AFTER,
        _init_output_streamer,
        why="finished requests must wait for their audio, and leave past the detokenizer",
        remove_when="the output streamer's class is an argument",
    ),
    Hook(
        f"{_SRT}.managers.scheduler_components.batch_result_processor"
        ".SchedulerBatchResultProcessor._maybe_collect_customized_info",
        HookType.AROUND,
        _collect_customized_info,
        why="the one place that sees every accepted row exactly once",
        remove_when="SGLang calls back for accepted tokens",
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler.process_input_requests",
        HookType.AFTER,
        _process_input_requests,
        why="audio that has become whole leaves between steps, and while no step runs",
        remove_when="the scheduler's loop has a place for plugins",
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler.abort_request",
        HookType.AFTER,
        _abort_request,
        why="SGLang no longer knows a request that waits for its audio",
        remove_when="held requests are the scheduler's own",
    ),
    Hook(
        f"{_SRT}.mem_cache.memory_pool.ReqToTokenPool.free",
        HookType.BEFORE,
        _free_slot,
        why="an aborted request may leave without passing the output streamer",
        remove_when="every end of a request passes the output streamer",
    ),
    Hook(
        f"{_SRT}.model_executor.runner.decode_cuda_graph_runner.graph_capture",
        HookType.AROUND,
        _graph_capture,
        why="kernels of a decoding step would queue behind the codec's: both would have the lowest priority",
        remove_when="the capture stream's priority is an argument",
    ),
    *(
        Hook(
            f"{_SRT}.managers.tp_worker.BaseTpWorker.update_weights_from_{source}",
            HookType.AROUND,
            _refuse_update,
            why="new weights under the codec's thread; a checkpoint of another shape ends the scheduler",
            remove_when="the codec can be paused for an update",
        )
        for source in ("disk", "distributed", "tensor", "ipc")
    ),
)


def install(hooks: tuple[Hook, ...]) -> None:
    """Apply every hook.

    Raises:
        SystemExit: a target is absent, or was patched by somebody else before; SGLang alone would only log that.
    """
    taken = [hook.target for hook in hooks if hook.target in HookRegistry._patched]
    for hook in hooks:
        HookRegistry.register(hook.target, hook.body, hook.kind)
    HookRegistry.apply_hooks()
    absent = [hook.target for hook in hooks if hook.target not in HookRegistry._patched]
    if taken or absent:
        raise SystemExit(
            f"sglang_moss: hooks do not fit this SGLang: patched before {taken}, not found {absent}; "
            f"tested with {TESTED_SGLANG}"
        )
