"""What cannot work of a command line, told before a server starts, which takes a minute or more.

`moss-ttsd serve` begins with it (`command`); `sglang serve` comes to it some five seconds later, since it imports
SGLang before it looks for any plugin.

These look at the words of the command line alone, before anything reads them for good. What they do not understand
they leave to SGLang's own parser.
"""

import argparse
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sglang_moss.checkpoint import is_fused, why_not_served
from sglang_moss.devices import device_problem

FLAG = "--delay-pattern"
_N_PORTS = 65_536
_DEFAULT_VOICES_DIR = "~/.cache/sglang-moss/voices"


def is_ours(argv: Sequence[str]) -> bool:
    """Whether a command line, without its program, is one of `sglang serve` for our model."""
    words = _words(argv)
    return words is not None and (words.delay_pattern or is_fused(words.model_path))


def check(argv: Sequence[str]) -> None:
    """Check what is named on a command line for which `is_ours` holds.

    Raises:
        SystemExit: no model is named, or it is no fused checkpoint; there is no such device; the address is taken; or
            the folder of voices cannot be written.
    """
    words = _words(argv)
    if words is None or words.config is not None:  # a file of more arguments, read later
        return
    if not words.model_path:
        raise SystemExit("sglang_moss: which model? Name a fused checkpoint: moss-ttsd serve FUSED")
    if not is_fused(words.model_path):
        raise SystemExit(f"sglang_moss: {why_not_served(words.model_path)}")
    if words.device is not None and (problem := device_problem(words.device, one_gpu=False)) is not None:
        raise SystemExit(f"sglang_moss: --device: {problem}")
    if words.port.isdecimal() and words.node_rank == "0":
        check_address(words.host, int(words.port))
    voices_folder(words.voices_dir)


def check_address(host: str, port: int) -> None:
    """Whether a server could listen there at this moment.

    Raises:
        SystemExit: it could not; the message names the address and the argument.
    """
    try:
        if port >= _N_PORTS:  # `getaddrinfo` takes the remainder
            raise OSError(f"ports are below {_N_PORTS}")
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        raise SystemExit(
            f"sglang_moss: no server can listen on port {port} of {host} ({error}); name another with --port or --host"
        ) from error


def voices_folder(named: str | None) -> Path:
    """The folder of voices, made where it is not there yet.

    Args:
        named: the value of `--voices-dir`, or None for the usual one.
    Raises:
        SystemExit: it cannot be made or written.
    """
    text = named or _DEFAULT_VOICES_DIR
    try:
        folder = Path(text).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        raise no_voices(text, error) from error


def no_voices(folder: str | Path, error: Exception) -> SystemExit:
    """To raise where voices cannot be kept in `folder`."""
    return SystemExit(f"sglang_moss: no voices can be kept in {folder} ({error}); name a folder with --voices-dir")


def _words(argv: Sequence[str]) -> argparse.Namespace | None:
    if not argv or argv[0] != "serve":
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--model-path", "--model", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="30000")
    parser.add_argument("--node-rank", default="0")
    parser.add_argument("--voices-dir")
    parser.add_argument("--device")
    parser.add_argument("--config")
    parser.add_argument("--delay-pattern", action="store_true")
    is_first = len(argv) > 1 and not argv[1].startswith("-")  # as `sglang serve MODEL` has it
    try:
        words, others = parser.parse_known_args(["--model-path", *argv[1:]] if is_first else argv[1:])
    except argparse.ArgumentError:
        return None
    asks_for_help = not {"-h", "--help"}.isdisjoint(others)
    return None if asks_for_help else words
