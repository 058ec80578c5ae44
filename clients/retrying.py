"""Trying again what may work a moment later: a server that is busy or starting, a connection that failed.

Asking twice changes nothing on the server: a request that was made before its connection broke is ended there.
"""

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from .errors import ServerRefused, ServerUnreachable

_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LONGEST_ASKED_WAIT_S = 120.0  # however long a server asks for


def retrying(retries: int) -> Retrying:
    """Calls a function again, up to `retries` times, while it fails for a while only; then raises what it raised."""
    return Retrying(retry=retry_if_exception(may_pass), stop=stop_after_attempt(1 + retries), wait=_wait, reraise=True)


def async_retrying(retries: int) -> AsyncRetrying:
    """`retrying` for asyncio."""
    return AsyncRetrying(
        retry=retry_if_exception(may_pass), stop=stop_after_attempt(1 + retries), wait=_wait, reraise=True
    )


def may_pass(error: BaseException) -> bool:
    """Whether a failure is likely to be gone soon."""
    if isinstance(error, ServerRefused):
        return error.status in _BUSY
    return isinstance(error, ServerUnreachable) and not isinstance(error.__cause__, httpx.ReadTimeout)


_backoff = wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)


def _wait(state: RetryCallState) -> float:
    """Seconds until the next try: what the server asks for, or about twice as long each time."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, ServerRefused) else None
    return _backoff(state) if asked_s is None else min(asked_s, _LONGEST_ASKED_WAIT_S)
