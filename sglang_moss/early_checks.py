"""What cannot work of a command line, told before a server starts, which takes a minute or more.

`moss-ttsd serve` begins with it (`command`); `sglang serve` comes to it some five seconds later, since it imports
SGLang before it looks for any plugin.

These look at the words of the command line alone (`command_line`), before anything reads them for good. What they do
not understand they leave to SGLang's own parser.
"""

import functools
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sglang_moss.checkpoint import is_fused, missing_weights, why_not_served
from sglang_moss.command_line import FLAG, NoConfigFile, read
from sglang_moss.devices import device_problem

_N_PORTS = 65_536
NOT_WRITABLE = (OSError, RuntimeError, ValueError)  # what `writable_folder` raises
_DEFAULT_VOICES_DIR = "~/.cache/sglang-moss/voices"


def is_ours(argv: Sequence[str]) -> bool:
    """Whether a command line, without its program, is one of `sglang serve` for our model."""
    try:
        words = read(argv)
    except NoConfigFile:
        return FLAG in argv
    return words is not None and (words.delay_pattern or is_fused(words.model_path))


def check(argv: Sequence[str]) -> None:
    """Check what is named on a command line for which `is_ours` holds.

    Raises:
        SystemExit: no model is named, or it is no fused checkpoint, or not whole; there is no such device; the address
            is none or is taken; the folder of voices cannot be written; or a file of arguments cannot be read.
    """
    try:
        words = read(argv)
    except NoConfigFile as error:
        raise SystemExit(f"sglang_moss: {error}") from error
    if words is None:
        return
    if not words.model_path:
        raise SystemExit(
            "sglang_moss: which model? Name a fused checkpoint, before other arguments: moss-ttsd serve FUSED"
        )
    if not is_fused(words.model_path):
        raise SystemExit(f"sglang_moss: {why_not_served(words.model_path)}")
    if words.load_format != "dummy" and (name := missing_weights(words.model_path)) is not None:
        raise SystemExit(f"sglang_moss: {words.model_path} is not whole: it has no {name}; fuse or copy it again")
    if words.device is not None and (problem := device_problem(words.device, one_gpu=False)) is not None:
        raise SystemExit(f"sglang_moss: --device: {problem}")
    if words.node_rank == "0":
        try:
            port = int(words.port)
        except ValueError:
            raise _no_port(words.port) from None
        check_address(words.host, port)
    voices_folder(words.voices_dir)


def begin(argv: Sequence[str]) -> bool:
    """What comes first of a server of ours: it can be stopped, `check` passes, and it says what it does.

    Returns:
        `is_ours`; if not, nothing was done.
    Raises:
        SystemExit: as `check`.
    """
    if not is_ours(argv):
        return False
    from sglang_moss import start_signals  # of POSIX; what only reads a command line needs none of it

    start_signals.end_at_once()
    check(argv)
    _announce()
    return True


@functools.cache
def _announce() -> None:
    """Say, once in a process, why nothing is heard of it for a while."""
    print("sglang_moss: importing SGLang, which says nothing for half a minute", file=sys.stderr, flush=True)


def check_address(host: str, port: int) -> None:
    """Whether a server could listen there at this moment.

    Raises:
        SystemExit: it could not; the message names the address and the argument.
    """
    if not 0 < port < _N_PORTS:  # `getaddrinfo` takes the remainder; 0 is any, and nobody would be told which
        raise _no_port(port)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host can be such
        raise SystemExit(
            f"sglang_moss: no server can listen on port {port} of {host or 'an empty --host'} ({error}); "
            "name another with --port or --host"
        ) from error


def _no_port(said: str | int) -> SystemExit:
    return SystemExit(f"sglang_moss: --port is a number from 1 to {_N_PORTS - 1}, got {said!r}")


def voices_folder(named: str | None) -> Path:
    """The folder of voices, made where it is not there yet.

    Args:
        named: the value of `--voices-dir`, or None for the usual one.
    Raises:
        SystemExit: it cannot be made or written.
    """
    text = named or _DEFAULT_VOICES_DIR
    try:
        return writable_folder(text)
    except NOT_WRITABLE as error:
        raise no_voices(text, error) from error


def writable_folder(name: str) -> Path:
    """A folder in which this process has just made a file; made where it is not there yet.

    Raises:
        OSError: it cannot be made or written.
        RuntimeError: there is no such home directory.
        ValueError: no folder can have this name.
    """
    folder = Path(name).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def no_voices(folder: str | Path, error: Exception) -> SystemExit:
    """To raise where voices cannot be kept in `folder`."""
    return SystemExit(f"sglang_moss: no voices can be kept in {folder} ({error}); name a folder with --voices-dir")
