"""A first request before the server says that it is ready: it compiles kernels and proves the whole path.

It also proves that SGLang still calls every hook: one that is passed by would do nothing, silently.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request

from sglang_moss import dp_controller, hooking
from sglang_moss.config import profile_of
from sglang_moss.errors import MossError
from sglang_moss.hooks import HOOKS
from sglang_moss.request.codec_pool import CodecPool
from sglang_moss.request.profile import Profile

_FRAMES = 8
_NOBODY = "sglang-moss-nobody"  # id of no request
_ANSWER_SECONDS = 1800.0  # for all that is compiled on the slowest machine
_HOOKS_SECONDS = 30.0  # for the scheduler to come to the end of a request, and to the abort of nobody
_POLL_SECONDS = 0.05


async def speak_once(_disaggregation_mode: str, tokenizer_manager: Any) -> None:
    """Let every rank of the server speak a few frames.

    Raises:
        RuntimeError: the answer holds no audio, or a hook has not run; the server must not start.
    """
    from sglang.srt.managers.io_struct import AbortReq

    server_args = tokenizer_manager.server_args
    codec = CodecPool(server_args.codec_addresses, n_vq=1)  # no codes are asked for
    hooks = [hook for hook in HOOKS if hook.process != hooking.CONTROLLER or server_args.dp_size > 1]
    await check_hooks(codec, [hook for hook in hooks if hook.at_start])  # without one of these no answer may ever come
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            profile = profile_of(tokenizer_manager.model_config.hf_config)
            # At once, so that each goes to a rank of its own.
            await asyncio.gather(*(_speak(profile) for _ in range(server_args.dp_size)))
    except Exception as error:
        problem = f"no answer within {_ANSWER_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
        with contextlib.suppress(TimeoutError, MossError):  # the cause may be a hook that has not run
            async with asyncio.timeout(_HOOKS_SECONDS):
                if unused := await _unused(codec, hooks):
                    problem += f"; {hooking.passed_by(*unused)}"
        raise RuntimeError(f"the warm-up request failed: {problem}") from error
    tokenizer_manager._dispatch_to_scheduler(AbortReq(rid=_NOBODY))
    await check_hooks(codec, hooks)
    await tokenizer_manager.freeze_gc()  # what is loaded by now is nothing for later collections


async def _speak(profile: Profile) -> None:
    """Ask as `/generate` does, for something that a model of this profile can make.

    Raises:
        RuntimeError: the answer is no speech of the length that was asked for.
    """
    from sglang.srt.entrypoints.http_server import serve_generate_request
    from sglang.srt.managers.io_struct import GenerateReqInput

    async def stays() -> Any:  # a client that does not leave
        await asyncio.Event().wait()

    custom = {name: value for name, value in profile.example.items() if name != "text"}
    settings = {"max_new_tokens": _FRAMES, "ignore_eos": True, "sampling_seed": 0, "custom_params": custom}
    request = GenerateReqInput(text=str(profile.example.get("text", "")), sampling_params=settings)
    answer = await serve_generate_request(request, Request({"type": "http", "headers": []}, stays))
    body = json.loads(bytes(answer.body))
    if answer.status_code != HTTPStatus.OK:
        raise RuntimeError(f"it was answered by {answer.status_code}: {body}")
    n_frames = body.get("meta_info", {}).get("audio_frames")
    if n_frames != _FRAMES:
        raise RuntimeError(f"it gave {n_frames} frames of audio, expected {_FRAMES}")


async def check_hooks(codec: CodecPool, hooks: Sequence[hooking.Hook]) -> None:
    """Wait until every one of these hooks has run.

    Raises:
        RuntimeError: SGLang has passed one by, or the codec's thread does not say.
    """
    unused: list[str] | None = None
    try:
        async with asyncio.timeout(_HOOKS_SECONDS):
            while unused := await _unused(codec, hooks):
                await asyncio.sleep(_POLL_SECONDS)
    except (TimeoutError, MossError) as error:
        if unused is None:
            raise RuntimeError(f"the codec's thread has not answered within {_HOOKS_SECONDS:g} s") from error
        raise RuntimeError(hooking.passed_by(*unused)) from error


async def _unused(codec: CodecPool, hooks: Sequence[hooking.Hook]) -> list[str]:
    """Targets of hooks that have not run."""
    in_controller = {hook.target: 1 for hook in hooks if hook.process == hooking.CONTROLLER}
    runs = {
        hooking.HTTP: hooking.runs(),
        hooking.SCHEDULER: await codec.hook_runs(),
        hooking.CONTROLLER: in_controller if in_controller and dp_controller.is_settled() else {},
    }
    return hooking.unused(hooks, runs)
