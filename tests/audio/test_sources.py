"""Where references come from: forms, limits, the files a server may read and the addresses it may reach."""

import asyncio
import base64
import ipaddress
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from sglang_moss.audio import fetching, sources
from sglang_moss.audio.fetching import is_public
from sglang_moss.audio.sources import SourcePolicy, read_source
from sglang_moss.errors import BadReference

CLIP = bytes(range(256)) * 5
LOCAL = SourcePolicy(allow_private_urls=True, timeout_s=60.0, max_bytes=10_000)

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]


def read(source: object, policy: SourcePolicy = LOCAL) -> bytes:
    return asyncio.run(read_source(source, policy, 1)).data


def refusal(source: object, policy: SourcePolicy = LOCAL) -> str:
    with pytest.raises(BadReference) as caught:
        read(source, policy)
    message = str(caught.value)
    assert message.startswith("reference 2: ")
    assert len(message) < 250
    return message


class Server:
    """HTTP on a free port of 127.0.0.1: a raw answer, or a handler, for each path."""

    def __init__(self, routes: dict[str, bytes | Handler]) -> None:
        self.routes = routes
        self.requests: list[bytes] = []

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            answer = self.routes[self.requests[-1].split()[1].decode()]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def fetch(self, path: str, policy: SourcePolicy = LOCAL, host: str = "127.0.0.1") -> bytes:
        async def run() -> bytes:
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                return (await read_source(f"http://{host}:{port}{path}", policy, 1)).data

        return asyncio.run(run())

    def refuse(self, path: str, policy: SourcePolicy = LOCAL, host: str = "127.0.0.1") -> str:
        with pytest.raises(BadReference) as caught:
            self.fetch(path, policy, host)
        return str(caught.value)


def answer(body: bytes = CLIP, status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    n_bytes = len(body) if length is None else length
    extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {n_bytes}\r\n{extra}\r\n".encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"", status, Location=location)


def test_bytes_pass_as_they_are():
    assert read(CLIP) == CLIP


@pytest.mark.parametrize(
    "prefix", ["", "data:audio/wav;base64,", "data:;base64,", "DATA:audio/mpeg;codecs=mp3;BASE64,"]
)
def test_base64_is_decoded_with_and_without_a_data_uri(prefix):
    assert read(prefix + base64.b64encode(CLIP).decode()) == CLIP
    assert read(f" {prefix}{base64.encodebytes(CLIP).decode()}\n") == CLIP


def test_base64_that_begins_like_a_path_is_decoded():
    mp3 = b"\xff\xfb\x90\x00" + CLIP
    assert base64.b64encode(mp3).startswith(b"//")
    assert read(base64.b64encode(mp3).decode()) == mp3


@pytest.mark.parametrize("source", [None, 7, {"url": "http://x"}, ["UklGRg=="], bytearray(b"x")])
def test_other_types_are_refused(source):
    assert f"got {type(source).__name__}" in refusal(source)


@pytest.mark.parametrize("source", ["UklG!", "UklGR", "hello world", "ftp://host/clip", "Ünïcode=", "data:,x"])
def test_what_is_neither_form_is_refused(source):
    assert "base64" in refusal(source)


def test_relative_path_is_told_about_paths():
    assert "paths must be absolute" in refusal("voices/anna.wav")


def test_size_is_limited_for_every_form(tmp_path):
    big = bytes(10_001)
    (tmp_path / "big.wav").write_bytes(big)
    assert "at most 10000 bytes" in refusal(big)
    assert "at most 10000 bytes" in refusal(base64.b64encode(big).decode())
    assert "at most 10000 bytes" in refusal(base64.b64encode(b"\xff\xfb" + big).decode())
    paths = SourcePolicy(path_root=tmp_path, max_bytes=10_000)
    assert "at most 10000 bytes" in refusal(str(tmp_path / "big.wav"), paths)
    with (tmp_path / "huge.wav").open("wb") as huge:
        huge.truncate(1 << 40)  # which is not read for that
    assert f"got at least {1 << 40}" in refusal(str(tmp_path / "huge.wav"), paths)
    assert read(big[1:]) == read(base64.b64encode(big[1:]).decode()) == big[1:]


@pytest.mark.parametrize("source", ["/etc/passwd.wav", "file:///etc/passwd"])
def test_paths_are_refused_unless_a_folder_is_open(source):
    assert "this server reads no paths" in refusal(source)


def test_files_in_the_open_folder_are_read(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a clip.wav").write_bytes(CLIP)
    (tmp_path / "link.wav").symlink_to(tmp_path / "inner" / "a clip.wav")
    policy = SourcePolicy(path_root=tmp_path)
    assert read(f"{tmp_path}/inner/a clip.wav", policy) == CLIP
    assert read(f"file://{tmp_path}/inner/a%20clip.wav", policy) == CLIP
    assert read(f"file://localhost{tmp_path}/link.wav", policy) == CLIP


@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://{}"])
def test_files_are_not_read_where_they_would_stop_an_event_loop(tmp_path, monkeypatch, form):
    (tmp_path / "a.wav").write_bytes(CLIP)
    readers: list[threading.Thread] = []
    read_file = sources.read_file

    def noted(*operands: Any) -> Any:
        readers.append(threading.current_thread())
        return read_file(*operands)

    monkeypatch.setattr(sources, "read_file", noted)
    assert read(form.format(tmp_path / "a.wav"), SourcePolicy(path_root=tmp_path)) == CLIP
    assert readers
    assert threading.main_thread() not in readers


@pytest.mark.parametrize(
    ("source", "is_quick"),
    [
        ("UklGRg==", True),
        ("data:audio/wav;base64,UklGRg==", True),
        ("data:" + "x" * 1000, False),  # a long search for its comma
        ("UklG\nRg==", False),
        ("U" * (1 << 20), True),
        ("U" * ((1 << 20) + 4), False),
    ],
)
def test_only_what_takes_no_time_is_decoded_on_the_event_loop(source, is_quick):
    assert sources._is_quick(source) == is_quick


def test_nothing_outside_the_open_folder_is_read_or_told_about(tmp_path):
    root = tmp_path / "voices"
    (root / "folder.wav").mkdir(parents=True)
    secret = tmp_path / "secret.wav"
    secret.write_bytes(CLIP)
    (root / "link.wav").symlink_to(secret)
    (root / "loop.wav").symlink_to(root / "loop.wav")
    os.mkfifo(root / "pipe.wav")
    policy = SourcePolicy(path_root=root)
    paths = [
        secret,
        f"{root}/../secret.wav",
        f"{root}/link.wav",
        f"{root}/loop.wav",
        f"{root}/folder.wav",
        f"{root}/pipe.wav",
        f"{root}/missing.wav",
        f"{root}-and-more/x.wav",
        f"{root}/nul\0.wav",
        "/dev/zero.",
        f"file://{root}/%2e%2e/secret.wav",
    ]
    assert {refusal(str(path), policy) for path in paths} == {
        "reference 2: the path is no file in the folder that this server may read"
    }
    assert "names no host" in refusal(f"file://elsewhere{root}/x.wav", policy)


def test_url_is_fetched():
    server = Server({"/clip.wav": answer()})
    assert server.fetch("/clip.wav") == CLIP
    assert b"accept-encoding: identity" in server.requests[0].lower()


def test_urls_can_be_switched_off():
    assert "fetches no URLs" in refusal("https://example.org/clip.wav", SourcePolicy(allow_urls=False))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1"])
def test_private_address_is_refused_however_it_is_written(host):
    server = Server({"/clip.wav": answer()})
    assert "private or local" in server.refuse("/clip.wav", SourcePolicy(), host)
    assert not server.requests


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2001:0:7f00:1::",
        "2002:7f00:1::",
        "2002:808:808::",
        "fc00::1",
        "fe80::1",
        "fe80::1%1",
        "ff02::1",
    ],
)
def test_address_of_no_public_host_is_told(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_address_of_a_public_host_is_told(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.fixture(autouse=True)
def loops_of_asyncio() -> Iterator[None]:
    """SGLang makes uvloop's the loops of whoever imports it, and those look names up past Python."""
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(None)
    yield
    asyncio.set_event_loop_policy(before)


def resolve_to(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Make `names` resolve to these addresses; returns the list of look-ups, which grows."""
    real, lookups = socket.getaddrinfo, []

    def fake(host, port, *args, **kwargs):
        if host not in names:
            return real(host, port, *args, **kwargs)
        lookups.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return lookups


def only_this_host_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "is_public", lambda address: str(address) == "127.0.0.1")


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    only_this_host_is_public(monkeypatch)
    resolve_to(monkeypatch, {"clip.test": ["127.0.0.1", "10.0.0.1"]})
    server = Server({"/clip.wav": answer()})
    assert "private or local" in server.refuse("/clip.wav", SourcePolicy(), "clip.test")
    assert not server.requests


def test_connection_goes_to_the_checked_address_under_the_name_of_the_host(monkeypatch):
    only_this_host_is_public(monkeypatch)
    lookups = resolve_to(monkeypatch, {"clip.test": ["127.0.0.1"]})
    server = Server({"/clip.wav": answer()})
    assert server.fetch("/clip.wav", SourcePolicy(), "clip.test") == CLIP
    assert lookups == ["clip.test"]  # a second look-up could have answered differently
    assert b"\r\nhost: clip.test:" in server.requests[0].lower()


def test_tls_asks_for_the_name_of_the_host(monkeypatch):
    resolve_to(monkeypatch, {"clip.test": ["127.0.0.1"]})
    hello = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello.extend(await reader.read(4096))
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await read_source(f"https://clip.test:{port}/clip.wav", LOCAL, 1)

    with pytest.raises(BadReference, match="could not be fetched"):
        asyncio.run(run())
    assert b"clip.test" in hello


def test_proxies_of_the_environment_are_ignored(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Server({"/clip.wav": answer()}).fetch("/clip.wav") == CLIP


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_are_followed(status):
    server = Server({"/old": redirect("/new", status), "/new": redirect("newer"), "/newer": answer()})
    assert server.fetch("/old") == CLIP
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2/clip.wav", "http://169.254.169.254/latest/meta-data", "//10.0.0.1/"]
)
def test_redirect_to_a_private_address_is_refused(monkeypatch, target):
    only_this_host_is_public(monkeypatch)
    assert "private or local" in Server({"/clip.wav": redirect(target)}).refuse("/clip.wav", SourcePolicy())


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("file:///etc/passwd", "http or https"),
        ("ftp://127.0.0.1/x", "http or https"),
        ("data:audio/wav;base64,AAAA", "not valid"),
    ],
)
def test_redirect_to_another_scheme_is_refused(target, problem):
    server = Server({"/clip.wav": redirect(target)})
    assert problem in server.refuse("/clip.wav")
    assert len(server.requests) == 1


def test_endless_redirects_are_refused():
    server = Server({"/clip.wav": redirect("/clip.wav")})
    assert "redirects more than 3 times" in server.refuse("/clip.wav")
    assert len(server.requests) == 4


@pytest.mark.parametrize("url", ["http://user:word@127.0.0.1/x", "http://user@127.0.0.1/x"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    message = refusal(url)
    assert "user name or password" in message
    assert "word@" not in message


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///x",
        "http://[::1",
        "http://a b/",
        "http://a\0b/",
        "http://\ud83d/x",
        "http://a.test/\ud83d",
        "http://" + "a" * 300,
        "http://a:99999/",
    ],
)
def test_url_that_names_no_host_is_refused(url):
    assert "URL" in refusal(url)


def test_missing_page_is_refused_with_its_status():
    assert "HTTP 404" in Server({"/x": answer(b"gone", "404 Not Found")}).refuse("/x")


def test_body_that_announces_too_much_is_refused_before_it_is_read():
    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", length=10_001))
        await asyncio.sleep(60)

    assert "got at least 10001" in Server({"/x": stall}).refuse("/x")


def test_body_that_announces_nothing_is_cut_at_the_limit():
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(4_096))
            await writer.drain()

    assert "at most 10000 bytes" in Server({"/x": pour}).refuse("/x")


def test_body_shorter_than_announced_is_refused():
    assert "could not be fetched" in Server({"/x": answer(CLIP, length=len(CLIP) + 1)}).refuse("/x")


def test_body_longer_than_announced_is_read_as_announced():
    assert Server({"/x": answer(CLIP, length=100)}).fetch("/x") == CLIP[:100]


def test_compressed_body_is_refused():
    assert "compressed" in Server({"/x": answer(Content_Encoding="gzip")}).refuse("/x")


def test_body_that_drips_is_given_up_after_the_total_time():
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", length=1_000))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    assert "within 0.3 s" in Server({"/x": drip}).refuse("/x", SourcePolicy(allow_private_urls=True, timeout_s=0.3))


def test_closed_port_is_refused():
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))  # bound, but nobody listens
        assert "could not be fetched" in refusal(f"http://127.0.0.1:{placeholder.getsockname()[1]}/x")
