"""Every hook into SGLang, and every private field of SGLang's that we touch, in two tables: what, why, until when.

A body is thin: it calls a function of ours that is tested by itself. All of them do nothing for other models.
`hooking` installs and counts them.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from sglang.srt.plugins.hook_registry import HookType

from sglang_moss import generate_body
from sglang_moss.hooking import CONTROLLER, HTTP, SCHEDULER, Hook, PrivateFields, passed_by
from sglang_moss.request.record import current_record
from sglang_moss.server_args import serves_speech

_SRT = "sglang.srt"


def _no_detokenizer(original: Callable[..., Any], cls: type, server_args: Any, *args: Any, **kwargs: Any) -> Any:
    return ([], []) if serves_speech(server_args) else original(cls, server_args, *args, **kwargs)


def _contains_mm_input(result: bool, _request: Any) -> bool:
    return result or _served_here()


def _normalize(request: Any) -> None:
    if _served_here():
        generate_body.prepare(request)
        generate_body.give_priority(request, _server_args())
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
        from sglang_moss.multimodal_item import attach_progress

        attach_progress(multimodal_inputs, req)


def _get_output_streamer_class(result: type, scheduler: Any) -> Any:
    if not serves_speech(scheduler.server_args):
        return result
    from sglang_moss.output_streamer import streamer_class

    return streamer_class(scheduler)


def _process_input_requests(_result: None, scheduler: Any, *_args: Any) -> None:
    if serves_speech(scheduler.server_args):
        _streamer_of(scheduler).tick()


def _event_loop(controller: Any) -> None:
    if serves_speech(controller.server_args):
        from sglang_moss.dp_controller import settle

        settle(controller)


def _poll_timeout_aborts(result: list[Any], scheduler: Any) -> list[Any]:
    return [*result, *_streamer_of(scheduler).aborts()] if serves_speech(scheduler.server_args) else result


def _update_running_batch(original: Callable[..., Any], scheduler: Any, batch: Any) -> Any:
    turns = _streamer_of(scheduler).turns if serves_speech(scheduler.server_args) else None
    return original(scheduler, batch) if turns is None else turns.update(original, scheduler, batch)


def _abort_request(_result: None, scheduler: Any, request: Any) -> None:
    if serves_speech(scheduler.server_args):
        _streamer_of(scheduler).abort(request.rid, request.abort_all)


def _streamer_of(scheduler: Any) -> Any:
    """Our output streamer.

    Raises:
        RuntimeError: SGLang has made one without asking for its class; the process ends, before any request.
    """
    streamer = scheduler.output_streamer
    if not hasattr(streamer, "tick"):
        raise RuntimeError(passed_by(f"{_SRT}.managers.scheduler.Scheduler.get_output_streamer_class"))
    return streamer


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
    return serves_speech(_server_args())


def _server_args() -> Any:
    from sglang.srt.runtime_context import get_server_args

    return get_server_args()


HOOKS = (
    Hook(
        f"{_SRT}.entrypoints.engine.Engine._launch_detokenizer_subprocesses",
        HookType.AROUND,
        _no_detokenizer,
        why="an idle process of 1 GB that lengthens the start",
        remove_when="the detokenizer can be switched off by an argument",
        process=HTTP,
        at_start=True,
    ),
    Hook(
        f"{_SRT}.entrypoints.http_server._setup_and_run_http_server",
        HookType.BEFORE,
        _add_routes,
        why="the speech endpoint and the voices would need a port, a key and a process of their own",
        remove_when="plugins can add routes to the server",
        process=HTTP,
        at_start=True,
    ),
    Hook(
        f"{_SRT}.managers.io_struct.GenerateReqInput.contains_mm_input",
        HookType.AFTER,
        _contains_mm_input,
        why="a request without references would skip the processor, which builds its prompt",
        remove_when="a processor can ask for every request",
        process=HTTP,
    ),
    Hook(
        f"{_SRT}.managers.io_struct.GenerateReqInput.normalize_batch_and_arguments",
        HookType.BEFORE,
        _normalize,
        why="with n above 1 samples share a seed and lose references; lengths of batches go unchecked; a batch "
        "would count as one request where requests are counted",
        remove_when="SGLang expands audio_data and seeds with n",
        process=HTTP,
    ),
    Hook(
        f"{_SRT}.managers.tokenizer_manager.TokenizerManager.generate_request",
        HookType.AROUND,
        _generate_request,
        why="`text` of an answer needs its WAV header, and `meta_info` what it says of the audio; a client that leaves "
        "is noticed two seconds late; a failed batch leaves its other entries running; our own errors lose their "
        "sentence",
        remove_when="SGLang has a place to finish answers in, and aborts at once what nobody waits for",
        process=HTTP,
    ),
    Hook(
        f"{_SRT}.managers.schedule_batch.Req.extend_image_inputs",
        HookType.AFTER,
        _extend_image_inputs,
        why="the model cannot see which request a row belongs to, nor what it has produced",
        remove_when="`ForwardBatch` carries the requests",
        process=SCHEDULER,
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler.get_output_streamer_class",
        HookType.AFTER,
        _get_output_streamer_class,
        why="finished requests must wait for their audio, and leave past the detokenizer",
        remove_when="the output streamer's class can be registered",
        process=SCHEDULER,
        at_start=True,
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler.process_input_requests",
        HookType.AFTER,
        _process_input_requests,
        why="audio that has become whole leaves between steps, and while no step runs",
        remove_when="the scheduler's loop has a place for plugins",
        process=SCHEDULER,
        at_start=True,
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler._poll_timeout_aborts",
        HookType.AFTER,
        _poll_timeout_aborts,
        why="a request whose audio cannot be decoded would end on the rank that has the codec, and the others would "
        "wait for that rank for ever",
        remove_when="plugins can hand the scheduler aborts that reach all ranks",
        process=SCHEDULER,
        at_start=True,
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler.update_running_batch",
        HookType.AROUND,
        _update_running_batch,
        why="streams that are far ahead of their playback would slow the steps of those that wait for their first",
        remove_when="the scheduler asks a policy which running requests a decoding step has",
        process=SCHEDULER,
    ),
    Hook(
        f"{_SRT}.managers.scheduler.Scheduler.abort_request",
        HookType.AFTER,
        _abort_request,
        why="SGLang no longer knows a request that waits for its audio",
        remove_when="held requests are the scheduler's own",
        process=SCHEDULER,
    ),
    Hook(
        f"{_SRT}.managers.data_parallel_controller.DataParallelController.event_loop",
        HookType.BEFORE,
        _event_loop,
        why="a rank that is killed leaves a server that answers nobody; the loop takes a core; Ctrl-C loses what runs",
        remove_when="the controller watches its ranks, and waits for requests",
        process=CONTROLLER,
        at_start=True,
    ),
    Hook(
        f"{_SRT}.mem_cache.memory_pool.ReqToTokenPool.free",
        HookType.BEFORE,
        _free_slot,
        why="an aborted request may leave without passing the output streamer",
        remove_when="every end of a request passes the output streamer",
        process=SCHEDULER,
    ),
)

# By whom each is looked for: the scheduler's by `output_streamer`, those of attention by its backend, a layer's by
# `backbone.decoding`, the HTTP process's by `server.app`.
PRIVATE_FIELDS = (
    PrivateFields(
        "Scheduler",
        (
            "ipc_channels.send_to_tokenizer.socket",
            "idle_sleeper.poller",
            "tp_worker.model_runner.model",
            "tp_worker.model_runner.sampler",
        ),
        why="audio leaves on the socket to the HTTP process; the codec's thread wakes an idle scheduler; accepted rows "
        "come from the sampler",
    ),
    PrivateFields(
        "Req",
        (
            "rid",
            "stream",
            "to_finish",
            "finished_reason",
            "finished_output",
            "sampling_params.stream_interval",
            "origin_input_ids",
            "full_untruncated_fill_ids",
            "extend_end",
            "time_stats.wait_queue_entry_time",
            "time_stats.forward_entry_time",
        ),
        why="a request that has ended is held until its audio has left; a prefill knows its last chunk; the prefix "
        "cache knows where the prompt ends; a client may ask how long its request has waited",
    ),
    PrivateFields(
        "ScheduleBatch",
        (
            "reqs",
            "forward_mode",
            "input_ids",
            "seq_lens",
            "seq_lens_cpu",
            "seq_lens_sum",
            "orig_seq_lens",
            "out_cache_loc",
            "sampling_info",
            "batch_is_full",
            "filter_batch",
            "check_decode_mem",
        ),
        why="a decoding step that leaves requests out is made of a copy of the running batch",
    ),
    PrivateFields(
        "FlashAttentionBackend",
        (
            "device",
            "forward_metadata",
            "get_paged_mha_kv_cache",
            "head_dim",
            "kv_cache_dtype",
            "num_attention_heads",
            "num_kv_heads",
            "page_size",
            "token_to_kv_pool.set_kv_buffer",
        ),
        why="decoding steps of many requests read SGLang's cache by a kernel of ours (`attention/backend.py`)",
    ),
    PrivateFields(
        "FlashAttentionMetadata",
        ("page_table", "cache_seqlens_int32"),
        why="where the rows of each request lie, and how many there are",
    ),
    PrivateFields(
        "ForwardBatch",
        ("_attn_output", "spec_info"),
        why="a step that is told where its attention goes, or that speculates, is left to SGLang",
    ),
    PrivateFields(
        "Qwen3DecoderLayer",
        (
            "input_layernorm.variance_epsilon",
            "input_layernorm.weight",
            "post_attention_layernorm",
            "self_attn.attn.k_scale",
            "self_attn.attn.layer_id",
            "self_attn.attn.v_scale",
            "self_attn.head_dim",
            "self_attn.k_norm.variance_epsilon",
            "self_attn.k_norm.weight",
            "self_attn.num_heads",
            "self_attn.num_kv_heads",
            "self_attn.o_proj.bias",
            "self_attn.q_norm.variance_epsilon",
            "self_attn.q_norm.weight",
            "self_attn.qkv_proj.quant_method",
            "self_attn.rotary_emb.cos_sin_cache",
            "self_attn.rotary_emb.is_neox_style",
            "self_attn.rotary_emb.rotary_dim",
            "mlp.act_fn",
            "mlp.down_proj.bias",
            "mlp.gate_up_proj.bias",
        ),
        why="a decoding step may go through the layers' products with kernels of ours between them "
        "(`backbone/decoding.py`)",
    ),
    PrivateFields(
        "Fp8LinearMethod",
        ("cutlass_fp8_supported", "block_quant", "use_marlin"),
        why="such products take rows that are quantized already, unless they are of another kind",
    ),
    PrivateFields(
        "TokenizerManager",
        (
            "rid_to_state",
            "signal_handler_class",
            "_dispatch_to_scheduler",
            "_handle_abort_req",
            "_subprocess_watchdog",
            "mm_processor.ranks",
        ),
        why="what a client has left is aborted at once; a server that ends tells its clients so; a data-parallel rank "
        "has one request less",
    ),
    PrivateFields(
        "ReqState",
        ("text_chunks", "time_stats.api_server_dispatch_time"),
        why="text of a stream is not kept for its end; only what has reached the scheduler is aborted there",
    ),
    PrivateFields(
        "FastAPI",
        ("user_middleware", "build_middleware_stack"),
        why="our layers stand inside SGLang's key check, and around everything",
    ),
    PrivateFields(
        "HttpToolsProtocol",
        (
            "_should_upgrade",
            "_start_asgi_task",
            "_unset_keepalive_if_required",
            "cycle",
            "expect_100_continue",
            "flow",
            "headers",
            "parser",
            "pipeline",
            "send_400_response",
            "timeout_keep_alive_handler",
            "timeout_keep_alive_task",
        ),
        why="uvicorn's connection loses refusals and requests, and waits for ever (`server/http_connection.py`)",
    ),
)
