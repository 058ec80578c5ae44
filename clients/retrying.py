"""Trying again what may work a moment later: a server that is busy or starting, a connection that failed.

Asking twice for speech changes nothing on the server: a request that was made before its connection broke is ended
there. What changes the server is asked for again only where it was refused before anything was done, or not reached.
"""

from collections.abc import Callable
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from .errors import ServerRefused, ServerUnreachable

_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
_BEHIND_A_PROXY = (httpx.codes.BAD_GATEWAY, httpx.codes.GATEWAY_TIMEOUT)  # the server restarts, or had begun
_NOT_ASKED = (httpx.ConnectError, httpx.ConnectTimeout)
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LONGEST_ASKED_WAIT_S = 120.0  # however long a server asks for


def may_pass(error: BaseException) -> bool:
    """Whether a failure is likely to be gone soon."""
    if isinstance(error, ServerRefused):
        return error.status in _BUSY or error.status in _BEHIND_A_PROXY
    return isinstance(error, ServerUnreachable) and not isinstance(error.__cause__, httpx.ReadTimeout)


def did_nothing(error: BaseException) -> bool:
    """Whether the server was too busy to begin, or never asked.

    A proxy's own 503, of a connection that broke, says nothing of that.
    """
    if isinstance(error, ServerRefused):
        return error.status in _BUSY and (error.code is not None or error.retry_after_s is not None)
    return isinstance(error, ServerUnreachable) and isinstance(error.__cause__, _NOT_ASKED)


def retrying(retries: int, on: Callable[[BaseException], bool] = may_pass) -> Retrying:
    """Calls a function again, up to `retries` times, while `on` says so of its failure; then raises what it raised."""
    return Retrying(**_policy(retries, on))


def async_retrying(retries: int, on: Callable[[BaseException], bool] = may_pass) -> AsyncRetrying:
    """`retrying` for asyncio."""
    return AsyncRetrying(**_policy(retries, on))


def _policy(retries: int, on: Callable[[BaseException], bool]) -> dict[str, Any]:
    return {"retry": retry_if_exception(on), "stop": stop_after_attempt(1 + retries), "wait": _wait, "reraise": True}


_backoff = wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)


def _wait(state: RetryCallState) -> float:
    """Seconds until the next try: what the server asks for, or about twice as long each time."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, ServerRefused) else None
    return _backoff(state) if asked_s is None else min(asked_s, _LONGEST_ASKED_WAIT_S)
