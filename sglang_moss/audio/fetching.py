"""One file from an address that a stranger named, over http(s), within bounds.

A server that fetches what strangers name is a way into its own network, so an address is checked after the name is
resolved, the connection goes to that very address (a second lookup could answer differently), and every redirect
starts again from there. Proxies from the environment are ignored: they would resolve the name themselves.
"""

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # what an IPv6-only network resolves IPv4 hosts to
_TUNNELS = tuple(map(ipaddress.ip_network, ("::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")))

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class CannotFetch(Exception):  # noqa: N818 (named for what is the matter)
    """Why nothing was fetched, in a sentence that repeats no address."""


@dataclass(frozen=True)
class FetchLimits:
    """What may be fetched."""

    max_bytes: int
    allow_private: bool = False  # loopback, private and link-local networks
    timeout_s: float = 10.0  # from the lookup of the name to the last byte, redirects included
    max_redirects: int = 3
    what: str = "a clip"  # for sentences
    headers: Mapping[str, str] = field(default_factory=dict)  # beside those that a request needs

    def check_size(self, n_bytes: int) -> None:
        """Raises CannotFetch."""
        if n_bytes > self.max_bytes:
            raise CannotFetch(f"{self.what} has at most {self.max_bytes} bytes, got at least {n_bytes}")


@dataclass(frozen=True)
class Fetched:
    """A file, and what its server calls it; an empty string where it does not say."""

    data: bytes
    media_type: str


async def fetch(url: str, limits: FetchLimits) -> Fetched:
    """GET `url`, following redirects by hand.

    Raises:
        CannotFetch: it is not http(s), not public, not there, too large or too slow.
    """
    try:
        async with (
            asyncio.timeout(limits.timeout_s),
            httpx.AsyncClient(verify=_tls(), trust_env=False, follow_redirects=False, timeout=None) as client,
        ):
            target = httpx.URL(url)
            for _ in range(limits.max_redirects + 1):
                answer = await _get(client, target, limits)
                if isinstance(answer, Fetched):
                    return answer
                target = answer
    except TimeoutError:
        raise CannotFetch(f"the URL did not answer in full within {limits.timeout_s:g} s") from None
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: half of a surrogate pair
        raise CannotFetch("the URL is not valid") from None
    except httpx.HTTPError as error:
        raise CannotFetch(f"the URL could not be fetched ({type(error).__name__})") from None
    raise CannotFetch(f"the URL redirects more than {limits.max_redirects} times")


async def _get(client: httpx.AsyncClient, url: httpx.URL, limits: FetchLimits) -> Fetched | httpx.URL:
    """The body behind `url`, or where it redirects to."""
    if url.scheme not in ("http", "https") or not url.host:
        raise CannotFetch("a URL must be http or https and name a host")
    if url.userinfo:
        raise CannotFetch("a URL must not hold a user name or password")
    request = client.build_request(
        "GET",
        url.copy_with(host=str(await _resolve(url, limits))),
        # Compressed answers could unfold to any size.
        headers={**limits.headers, "Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": url.raw_host.decode("ascii")},  # certificates are checked against the name
    )
    response = await client.send(request, stream=True)
    try:
        location = response.headers.get("location")
        if response.status_code in _REDIRECTS and location:
            return url.join(location)
        if response.status_code != httpx.codes.OK:
            raise CannotFetch(f"the URL answered HTTP {response.status_code}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise CannotFetch("the URL answered with compressed content, which is not accepted")
        return Fetched(await _read_body(response, limits), response.headers.get("content-type", ""))
    finally:
        await response.aclose()


async def _read_body(response: httpx.Response, limits: FetchLimits) -> bytes:
    announced = response.headers.get("content-length", "")
    if announced.isdecimal():
        limits.check_size(int(announced))
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        limits.check_size(len(body))
    return bytes(body)


async def _resolve(url: httpx.URL, limits: FetchLimits) -> _IPAddress:
    """An address of the URL's host; all of them must be public, unless the policy does not mind."""
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            url.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM
        )
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
    except (OSError, ValueError):  # ValueError: a label too long for IDNA
        raise CannotFetch("the host of the URL is not known") from None
    if not limits.allow_private and not all(map(is_public, addresses)):
        raise CannotFetch("the URL leads to a private or local address, which this server does not fetch from")
    return addresses[0]


def is_public(address: _IPAddress) -> bool:
    """Whether `address` belongs to the public internet, and so does the IPv4 address that it may stand for."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(address.packed[-4:]))
        if any(address in tunnel for tunnel in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)  # slow to make: it reads every root certificate
