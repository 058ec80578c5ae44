"""A first request before the server says that it is ready: it compiles kernels and proves the whole path.

It also proves that SGLang still calls every hook: one that is passed by would do nothing, silently.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from sglang_moss import hooking
from sglang_moss.errors import MossError
from sglang_moss.hooks import HOOKS
from sglang_moss.request.codec_client import CodecClient

_TEXT = "[S1] One, two, three."
_FRAMES = 8
_NOBODY = "sglang-moss-nobody"  # id of no request
_ANSWER_SECONDS = 1800.0  # for all that is compiled on the slowest machine
_HOOKS_SECONDS = 10.0  # for the scheduler to come to the end of a request, and to the abort of nobody
_POLL_SECONDS = 0.05


async def speak_once(_disaggregation_mode: str, tokenizer_manager: Any) -> None:
    """Let the server speak a few frames.

    Raises:
        RuntimeError: the answer holds no audio, or a hook has not run; the server must not start.
    """
    from sglang.srt.entrypoints.http_server import serve_generate_request
    from sglang.srt.managers.io_struct import AbortReq, GenerateReqInput

    nobody: Any = None  # no HTTP request
    request = GenerateReqInput(
        text=_TEXT, sampling_params={"max_new_tokens": _FRAMES, "ignore_eos": True, "sampling_seed": 0}
    )
    codec = CodecClient(tokenizer_manager.server_args.codec_address, n_vq=1)  # no codes are asked for
    await check_hooks(codec, [hook for hook in HOOKS if hook.at_start])  # without one of these no answer may ever come
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer = await serve_generate_request(request, nobody)  # as `/generate` does it
        n_frames = json.loads(bytes(answer.body)).get("meta_info", {}).get("audio_frames")
        if n_frames != _FRAMES:
            raise RuntimeError(f"the warm-up request gave {n_frames} frames of audio, expected {_FRAMES}")
    finally:  # what a hook that has not run breaks is told by the hook
        tokenizer_manager._dispatch_to_scheduler(AbortReq(rid=_NOBODY))
        await check_hooks(codec, HOOKS)
    await tokenizer_manager.freeze_gc()  # what is loaded by now is nothing for later collections


async def check_hooks(codec: CodecClient, hooks: Sequence[hooking.Hook]) -> None:
    """Wait until every one of these hooks has run.

    Raises:
        RuntimeError: SGLang has passed one by.
    """
    unused = hooking.unused(hooks, {hooking.HTTP: hooking.runs(), hooking.SCHEDULER: {}})
    try:
        async with asyncio.timeout(_HOOKS_SECONDS):
            while True:
                runs = {hooking.HTTP: hooking.runs(), hooking.SCHEDULER: await codec.hook_runs()}
                unused = hooking.unused(hooks, runs)
                if not unused:
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except (TimeoutError, MossError) as error:
        raise RuntimeError(hooking.passed_by(*unused)) from error
