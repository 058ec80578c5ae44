"""Where a reference comes from: what a client may write into `audio_data`, and the bytes it stands for.

    data:audio/wav;base64,UklGR...      or bare base64        the bytes themselves
    https://host/clip.wav               if URLs are allowed   fetched, from public addresses only
    file:///dir/clip.wav, /dir/clip.wav if a folder is open   read, from inside that folder only

A server that fetches what strangers name is a way into its own network, so an address is checked after the name is
resolved, the connection goes to that very address (a second lookup could answer differently), and every redirect
starts again from there. Proxies from the environment are ignored: they would resolve the name themselves.
"""

import asyncio
import functools
import ipaddress
import os
import re
import socket
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import httpx
import pybase64

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.errors import BadReference

_DATA_URI = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_BLANKS = " \t\r\n"  # base64 comes in lines at times
_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # what an IPv6-only network resolves IPv4 hosts to
_TUNNELS = tuple(map(ipaddress.ip_network, ("::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")))

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class SourcePolicy:
    """What this server agrees to read for its clients."""

    allow_urls: bool = True
    allow_private_urls: bool = False  # loopback, private and link-local networks
    path_root: Path | None = None  # the folder that paths may lie in; None: no paths
    timeout_s: float = 10.0  # for one URL, from the lookup of its name to the last byte, redirects included
    max_bytes: int = ReferenceLimits.max_bytes
    max_redirects: int = 3


class _SourceError(Exception):
    """Why a source was not read; the public function adds which one it was."""


class _NotBase64Error(_SourceError):
    """The string is no base64: perhaps it is something else."""


async def read_source(source: object, policy: SourcePolicy, position: int) -> bytes:
    """The bytes of one reference, not yet checked to be audio.

    Args:
        source: one entry of `audio_data`: bytes, or a string of one of the forms above.
        policy: what may be read.
        position: of the entry, from 0; the errors name it.
    Raises:
        BadReference: a form we do not take or the policy forbids, or it cannot be read within the limits.
    """
    try:
        if isinstance(source, bytes):
            data = source
        elif isinstance(source, str):
            data = await _read_string(source.strip(), policy)
        else:
            raise _SourceError(f"expected a data URI, base64, or a URL as a string, got {type(source).__name__}")
        _check_size(len(data), policy)
    except _SourceError as refusal:
        raise BadReference.at(position, str(refusal)) from None
    return data


async def _read_string(source: str, policy: SourcePolicy) -> bytes:
    if source[:8].lower().startswith(("http://", "https://")):
        if not policy.allow_urls:
            raise _SourceError("this server fetches no URLs; send the file in base64")
        return await _fetch(source, policy)
    return await asyncio.to_thread(_read_local, source, policy)  # megabytes: too long for an event loop


def _read_local(source: str, policy: SourcePolicy) -> bytes:
    """What needs no network: a data URI, a file URL, a path, or bare base64."""
    scheme = source[:7].lower()
    if scheme.startswith("data:"):
        header = _DATA_URI.match(source)
        if header is None:
            raise _SourceError("a data URI must read data:audio/wav;base64,...; encode the file in base64")
        return _decode_base64(source[header.end() :], policy)
    if scheme == "file://":
        return _read_path(_path_of_url(source), policy)
    try:
        return _decode_base64(source, policy)  # first, because base64 of an MP3 begins with "//"
    except _NotBase64Error:
        if source.startswith("/"):
            return _read_path(source, policy)
        if Path(source[-64:]).suffix:
            raise _SourceError(
                "expected a data URI, a URL or base64, got what looks like a relative path; "
                "paths must be absolute, and the server started with a folder for them"
            ) from None
        raise


def _check_size(n_bytes: int, policy: SourcePolicy) -> None:
    if n_bytes > policy.max_bytes:
        raise _SourceError(f"a clip has at most {policy.max_bytes} bytes, got at least {n_bytes}")


def _decode_base64(text: str, policy: SourcePolicy) -> bytes:
    if any(blank in text for blank in _BLANKS):
        text = "".join(text.split())
    _check_size(len(text) // 4 * 3 - 2, policy)  # before the bytes exist; padding stands for two of them at most
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise _NotBase64Error("expected a data URI, a URL or valid base64, got none of them") from None


def _path_of_url(url: str) -> str:
    host, slash, path = url[len("file://") :].partition("/")
    if host.lower() not in ("", "localhost"):
        raise _SourceError("a file URL names no host: file:///folder/clip.wav")
    return slash + unquote(path)


def _read_path(path: str, policy: SourcePolicy) -> bytes:
    """One message for all that is out of bounds, so that nobody learns which files exist."""
    if policy.path_root is None:
        raise _SourceError("this server reads no paths unless it was started with a folder for them; send base64")
    out_of_bounds = _SourceError("the path is no file in the folder that this server may read")
    try:
        resolved = Path(os.path.realpath(path, strict=True))
        if not resolved.is_relative_to(policy.path_root.resolve(strict=True)):
            raise out_of_bounds
        # Without O_NONBLOCK the opening of a pipe would wait for a writer.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise out_of_bounds
            _check_size(status.st_size, policy)
            return file.read(policy.max_bytes + 1)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        raise out_of_bounds from None


async def _fetch(url: str, policy: SourcePolicy) -> bytes:
    """GET `url`, following redirects by hand."""
    try:
        async with (
            asyncio.timeout(policy.timeout_s),
            httpx.AsyncClient(verify=_tls(), trust_env=False, follow_redirects=False, timeout=None) as client,
        ):
            target = httpx.URL(url)
            for _ in range(policy.max_redirects + 1):
                answer = await _get(client, target, policy)
                if isinstance(answer, bytes):
                    return answer
                target = answer
    except TimeoutError:
        raise _SourceError(f"the URL did not answer in full within {policy.timeout_s:g} s") from None
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: half of a surrogate pair
        raise _SourceError("the URL is not valid") from None
    except httpx.HTTPError as error:
        raise _SourceError(f"the URL could not be fetched ({type(error).__name__})") from None
    raise _SourceError(f"the URL redirects more than {policy.max_redirects} times")


async def _get(client: httpx.AsyncClient, url: httpx.URL, policy: SourcePolicy) -> bytes | httpx.URL:
    """The body behind `url`, or where it redirects to."""
    if url.scheme not in ("http", "https") or not url.host:
        raise _SourceError("a URL must be http or https and name a host")
    if url.userinfo:
        raise _SourceError("a URL must not hold a user name or password")
    request = client.build_request(
        "GET",
        url.copy_with(host=str(await _resolve(url, policy))),
        # Compressed answers could unfold to any size.
        headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": url.raw_host.decode("ascii")},  # certificates are checked against the name
    )
    response = await client.send(request, stream=True)
    try:
        location = response.headers.get("location")
        if response.status_code in _REDIRECTS and location:
            return url.join(location)
        if response.status_code != httpx.codes.OK:
            raise _SourceError(f"the URL answered HTTP {response.status_code}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _SourceError("the URL answered with compressed content, which is not accepted")
        return await _read_body(response, policy)
    finally:
        await response.aclose()


async def _read_body(response: httpx.Response, policy: SourcePolicy) -> bytes:
    announced = response.headers.get("content-length", "")
    if announced.isdecimal():
        _check_size(int(announced), policy)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        _check_size(len(body), policy)
    return bytes(body)


async def _resolve(url: httpx.URL, policy: SourcePolicy) -> _IPAddress:
    """An address of the URL's host; all of them must be public, unless the policy does not mind."""
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            url.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM
        )
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
    except (OSError, ValueError):  # ValueError: a label too long for IDNA
        raise _SourceError("the host of the URL is not known") from None
    if not policy.allow_private_urls and not all(map(is_public, addresses)):
        raise _SourceError("the URL leads to a private or local address, which this server does not fetch from")
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
