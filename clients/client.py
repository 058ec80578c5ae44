"""A client of a running server.

with MossClient("http://127.0.0.1:30000") as client:
    speech = client.generate("[S1] Hello. [S2] Hi.", [Reference("a.wav", "..."), Reference("b.wav", "...")], seed=1)
    Path("out.wav").write_bytes(speech.wav)
"""

import ipaddress
from collections.abc import Sequence
from typing import Any, Self, Unpack

import httpx

from .errors import ServerRefused, ServerUnreachable, UnusableAnswer
from .request import Reference, Settings, request_body
from .speech import Speech

DEFAULT_URL = "http://127.0.0.1:30000"  # where `sglang serve` listens unless told otherwise
DEFAULT_TIMEOUT_S = 3600.0
_CONNECT_TIMEOUT_S = 10.0
_SHOWN_CHARS = 400


class MossClient:
    """Sends requests over one pool of connections; may be used by several threads.

    Args:
        base_url: of the server.
        api_key: of the server, if it was started with one.
        timeout_s: how long to wait for an answer: it comes when all of the speech is there.
    Raises:
        ValueError: no URL of a server, or a key that no HTTP header can carry.
    """

    def __init__(
        self, base_url: str = DEFAULT_URL, api_key: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        url = _server_url(base_url)
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {_header_safe(api_key)}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
            trust_env=not _is_loopback(url.host),  # a proxy's own loopback is another machine's
        )

    def generate(self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]) -> Speech:
        """Speak a text.

        Args:
            text: a script, `[S1] ... [S2] ...`; directives may stand in front of it.
            references: clips of the speakers, [S1] first.
            settings: see `Settings`.
        Raises:
            ClientError: see `errors`.
            ValueError, OSError: see `request_body`; nothing was sent.
        """
        body = request_body(text, references, settings)
        try:
            response = self._http.post("/generate", json=body)
        except httpx.RequestError as error:
            raise ServerUnreachable(
                f"{self._http.base_url}: {_one_line(str(error)) or type(error).__name__}"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise ServerRefused(response.status_code, _message(response))
        try:
            answer = response.json()
        except ValueError as error:
            raise UnusableAnswer(f"the answer is not JSON ({error}): does this server serve MOSS-TTSD?") from error
        return Speech.from_answer(answer)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _server_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the server's URL must be like {DEFAULT_URL}, got {base_url!r} ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"the server's URL must be like {DEFAULT_URL}, got {base_url!r}")
    return url


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


def _message(response: httpx.Response) -> str:
    """The sentence in an error's body, whichever part of the server, or proxy before it, wrote it."""
    try:
        body: Any = response.json()
    except ValueError:
        body = response.text
    match body:
        case {"error": {"message": str(message)}} | {"error": str(message)}:
            pass
        case {"message": str(message)} | {"detail": str(message)}:
            pass
        case _:
            message = response.text
    return _one_line(message) or response.reason_phrase


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]} ..."
