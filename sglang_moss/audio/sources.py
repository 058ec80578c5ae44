"""Where a reference comes from: what a client may write into `audio_data`, and the bytes it stands for.

    data:audio/wav;base64,UklGR...      or bare base64        the bytes themselves
    https://host/clip.wav               if URLs are allowed   fetched, from public addresses only
    file:///dir/clip.wav, /dir/clip.wav if a folder is open   read, from inside that folder only

How an address is kept from leading into the server's own network: `fetching`.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pybase64

from sglang_moss.audio.fetching import CannotFetch, FetchLimits, fetch
from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.local_files import FileVersion, OutOfBoundsError, TooLargeError, read_file, version_of
from sglang_moss.errors import BadReference

_DATA_URI = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_BLANKS = " \t\r\n"  # base64 comes in lines at times
_SHORT_CHARS = 1 << 20  # base64 of 16 s at 24 kHz
_PATH_CHARS = 4096  # no path is longer
_HEAD_CHARS = 100


@dataclass(frozen=True)
class SourcePolicy:
    """What this server agrees to read for its clients."""

    allow_urls: bool = True
    allow_private_urls: bool = False  # loopback, private and link-local networks
    path_root: Path | None = None  # the folder that paths may lie in; None: no paths
    timeout_s: float = 10.0  # for one URL, from the lookup of its name to the last byte, redirects included
    max_bytes: int = ReferenceLimits.max_bytes
    max_redirects: int = 3

    @property
    def fetching(self) -> FetchLimits:
        return FetchLimits(self.max_bytes, self.allow_private_urls, self.timeout_s, self.max_redirects)


class _SourceError(Exception):
    """Why a source was not read; the public function adds which one it was."""


class _NotBase64Error(_SourceError):
    """The string is no base64: perhaps it is something else."""


class Source(NamedTuple):
    """What was read of a reference."""

    data: bytes
    is_content: bool  # what the client wrote holds all of it: written again, it stands for the same
    version: FileVersion | None = None  # of the file that holds it: while it has this one, it holds the same


async def read_source(source: object, policy: SourcePolicy, position: int) -> Source:
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
            found = Source(source, is_content=True)
        elif isinstance(source, str):
            found = await _read_string(source.strip(), policy)
        else:
            raise _SourceError(f"expected a data URI, base64, or a URL as a string, got {type(source).__name__}")
        _check_size(len(found.data), policy)
    except _SourceError as refusal:
        raise BadReference.at(position, str(refusal)) from None
    return found


async def file_version(source: object, policy: SourcePolicy) -> FileVersion | None:
    """The version of the file that a reference names; None: it names none that can be read, or one just written."""
    if policy.path_root is None or not isinstance(source, str) or len(source) > _PATH_CHARS:
        return None
    if not _may_be_path(text := source.strip()):
        return None

    def find() -> FileVersion | None:
        path = _path_in(text)
        return None if path is None else version_of(path, _root(policy))

    with contextlib.suppress(_SourceError, OutOfBoundsError):  # for which a reading has the words
        return await asyncio.to_thread(find)  # the folder may be on another machine
    return None


async def _read_string(source: str, policy: SourcePolicy) -> Source:
    if source[:8].lower().startswith(("http://", "https://")):
        if not policy.allow_urls:
            raise _SourceError("this server fetches no URLs; send the file in base64")
        try:
            return Source((await fetch(source, policy.fetching)).data, is_content=False)
        except CannotFetch as error:
            raise _SourceError(str(error)) from None
    if _is_quick(source):
        return _read_local(source, policy)
    return await asyncio.to_thread(_read_local, source, policy)  # megabytes, or a file: too long for an event loop


def _is_quick(source: str) -> bool:
    """Whether it is base64 that is decoded before another thread would have begun."""
    if len(source) > _SHORT_CHARS or _may_be_path(source) or _has_blanks(source):
        return False
    head = source[:_HEAD_CHARS].lower()
    return not head.startswith("data:") or "," in head


def _may_be_path(source: str) -> bool:
    return source[:5].lower().startswith(("/", "file:"))


def _read_local(source: str, policy: SourcePolicy) -> Source:
    """What needs no network: a data URI, a file URL, a path, or bare base64."""
    if source[:5].lower() == "data:":
        header = _DATA_URI.match(source)
        if header is None:
            raise _SourceError("a data URI must read data:audio/wav;base64,...; encode the file in base64")
        return Source(_decode_base64(source[header.end() :], policy), is_content=True)
    path = _path_in(source)
    if path is not None:
        return _read_path(path, policy)
    try:
        return Source(_decode_base64(source, policy), is_content=True)
    except _NotBase64Error:
        if not source.startswith("/") and Path(source[-64:]).suffix:
            raise _SourceError(
                "expected a data URI, a URL or base64, got what looks like a relative path; "
                "paths must be absolute, and the server started with a folder for them"
            ) from None
        raise


def _has_blanks(text: str) -> bool:
    return any(blank in text for blank in _BLANKS)


def _check_size(n_bytes: int, policy: SourcePolicy) -> None:
    if n_bytes > policy.max_bytes:
        raise _too_large(n_bytes, policy)


def _too_large(n_bytes: int, policy: SourcePolicy) -> _SourceError:
    return _SourceError(f"a clip has at most {policy.max_bytes} bytes, got at least {n_bytes}")


def _decode_base64(text: str, policy: SourcePolicy) -> bytes:
    if _has_blanks(text):
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


def _path_in(source: str) -> str | None:
    """The path that a string stands for, if it stands for one: base64 of an MP3 begins with a slash too."""
    if source[:7].lower() == "file://":
        return _path_of_url(source)
    if not source.startswith("/") or len(source) > _PATH_CHARS:
        return None
    try:
        pybase64.b64decode("".join(source.split()), validate=True)
    except ValueError:
        return source
    return None


def _read_path(path: str, policy: SourcePolicy) -> Source:
    try:
        data, version = read_file(path, _root(policy), policy.max_bytes)
    except OutOfBoundsError:
        raise _SourceError("the path is no file in the folder that this server may read") from None
    except TooLargeError as error:
        raise _too_large(error.args[0], policy) from None
    return Source(data, is_content=False, version=version)


def _root(policy: SourcePolicy) -> Path:
    if policy.path_root is None:
        raise _SourceError("this server reads no paths unless it was started with a folder for them; send base64")
    return policy.path_root
