"""What both clients share of HTTP: how they connect, and what they make of an answer that is not one."""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import httpx

from .errors import ServerRefused, ServerUnreachable

DEFAULT_URL = "http://127.0.0.1:30000"  # where `sglang serve` listens unless told otherwise
DEFAULT_TIMEOUT_S = 3600.0
DEFAULT_RETRIES = 2
_KEPT_S = 3.0  # idle connections; some servers close them after 5, and one that does so just then loses a request
_CONNECT_TIMEOUT_S = 10.0
_SHOWN_CHARS = 400

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class Connected(Generic[Http]):
    """A pool of connections to one server; `MossClient` says what its arguments mean."""

    _pool: Callable[..., Http]  # makes it; each client has its own

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        self._http = self._pool(**connection(base_url, api_key, timeout_s))
        self._retries = retries

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever goes wrong between here and the server in this block is ServerUnreachable."""
        try:
            yield
        except httpx.RequestError as error:
            reason = _one_line(str(error)) or type(error).__name__
            question = "; is the server running there?" if isinstance(error, httpx.ConnectError) else ""
            raise ServerUnreachable(f"{self._http.base_url}: {reason}{question}") from error


def connection(base_url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Arguments of `httpx.Client` and `httpx.AsyncClient`.

    Raises:
        ValueError: no URL of a server, or a key that no HTTP header can carry.
    """
    url = _server_url(base_url)
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {_header_safe(api_key)}"} if api_key else {},
        "timeout": httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
        "trust_env": not _is_loopback(url.host),  # a proxy's own loopback is another machine's
        # The server queues what it cannot run; httpx's own limit of 100 would do so unseen.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEPT_S),
    }


def check_success(response: httpx.Response) -> None:
    """Raises ServerRefused for an error, whichever part of the server, or proxy before it, wrote its body."""
    if response.is_success:
        return
    try:
        body: Any = response.json()
    except ValueError:
        body = response.text
    message = _one_line(_message(body, response.text)) or response.reason_phrase
    wait = response.headers.get("Retry-After", "")
    raise ServerRefused(response.status_code, message, float(wait) if wait.isdecimal() else None, _code(body))


def _message(body: Any, otherwise: str) -> str:
    match body:
        case {"error": {"message": str(message)}} | {"error": str(message)}:
            return message
        case {"message": str(message)} | {"detail": str(message)}:
            return message
    return otherwise


def _code(body: Any) -> str | None:
    match body:
        case {"error": {"code": str(code)}}:
            return code
    return None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]} ..."


def _server_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the server's URL must be like {DEFAULT_URL}, got {base_url!r} ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"the server's URL must be like {DEFAULT_URL}, got {base_url!r}")
    # OpenAI's clients want it with `/v1`, which is in our paths already.
    path = url.path.rstrip("/")
    return url.copy_with(path=path.removesuffix("/v1") or "/") if path.endswith("/v1") else url


def _header_safe(api_key: str) -> str:
    """The key without blanks around it, such as the newline of the file it came from; errors do not show it."""
    key = api_key.strip()
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError("the API key must be printable ASCII characters")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
