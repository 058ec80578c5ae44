"""Functions run in a process of their own, for what changes SGLang itself and would outlive a test."""

from collections.abc import Callable
from typing import Any

from warm_start import call_warm


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a test module returns, or raises, in a process of its own; SystemExit included.

    The process has imported SGLang and changed nothing of it: importing takes most of the time.
    """
    return call_warm(function, *arguments)
