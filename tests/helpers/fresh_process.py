"""Functions run in a process of their own, for what changes SGLang itself and would outlive a test."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

# Processes fork from a server that has imported SGLang and changed nothing of it: importing takes most of the time.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "sglang.srt.entrypoints.engine",
        "sglang.srt.entrypoints.warmup",
        "sglang.srt.managers.multimodal_processor",
        "sglang.srt.models.registry",
        "sglang_moss.hooks",
        "sglang_moss.models.moss_ttsd",
        "sglang_moss.processor",
    ]
)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a test module returns, or raises, in a process of its own; SystemExit included."""
    with ProcessPoolExecutor(1, mp_context=_CONTEXT, max_tasks_per_child=1) as pool:
        return pool.submit(function, *arguments).result()
