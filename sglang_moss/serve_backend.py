"""`sglang serve` for fused checkpoints: an entry of SGLang's group of serve backends.

SGLang asks every backend whether a command line is its own. Ours are those whose model is a fused MOSS-TTSD checkpoint,
with `--delay-pattern` or without, and those with the flag, whatever their model, so that a wrong one is named.
`sglang serve --model-type moss-ttsd --help` lists our arguments beside SGLang's.
"""

import argparse
import logging
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from sglang.cli.serve_backends import (
    SERVE_BACKEND_API_VERSION,
    ServeBackend,
    ServeBackendDetection,
    ServeRequest,
)

from sglang_moss import socket_folder
from sglang_moss.command_line import FLAG
from sglang_moss.early_checks import check_address, is_ours, voices_folder

logger = logging.getLogger(__name__)

_SECRETS = ("--api-key", "--admin-api-key", "--ssl-keyfile-password")
_USAGE = "%(prog)s FUSED [arguments], which `sglang serve --model-type moss-ttsd --help` lists"
_LISTENS_SECONDS = 60.0
_POLL_SECONDS = 0.2


def backend() -> ServeBackend:
    """Entry point of the group `sglang.serve_backends`."""
    return ServeBackend(api_version=SERVE_BACKEND_API_VERSION, run=run, detect=detect, requires_model_path=False)


def detect(request: ServeRequest) -> ServeBackendDetection:
    """Whether a command line of `sglang serve` is for us."""
    is_match = FLAG in request.argv or is_ours(["serve", *request.argv])
    return ServeBackendDetection.MATCH if is_match else ServeBackendDetection.NO_MATCH


def run(request: ServeRequest) -> None:
    """Serve until the server ends."""
    socket_folder.enter()
    server_args = parse(request.argv)
    if server_args.node_rank == 0:
        check_address(server_args.host, server_args.port)
    voices_folder(server_args.voices_dir)
    from sglang.srt.entrypoints.http_server import launch_server

    # Every other front of SGLang is refused by `supported_args`.
    launch_server(server_args, execute_warmup_func=wait_until_it_listens)


def parse(argv: Sequence[str]) -> Any:
    """A command line of `sglang serve` to `MossServerArgs`; `--config` names a YAML file of further arguments.

    Raises:
        SystemExit: status 2 for what is no argument; a sentence for what does not go with speech, or a file of
            arguments that cannot be read.
    """
    from sglang_moss.server_args import MossServerArgs

    parser = argparse.ArgumentParser(prog="sglang serve", usage=_USAGE)  # the usual one has five hundred lines
    MossServerArgs.add_cli_args(parser)
    argv = [word for arg in argv for word in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
    if "--config" in argv:  # in full, or SGLang does not look into the file
        from sglang.srt.utils.server_args_config_parser import ConfigArgumentMerger

        try:
            argv = ConfigArgumentMerger(parser).merge_config_with_args(argv)
        except ValueError as error:  # what `early_checks` has not told, such as two files
            raise SystemExit(f"sglang_moss: {error}") from error
    args = parser.parse_args(argv)
    if args.config is not None:
        parser.error("--config is not to be abbreviated")
    policy = "--radix-eviction-policy"
    args._radix_eviction_policy_explicitly_set = any(a == policy or a.startswith(f"{policy}=") for a in argv)
    logging.basicConfig(
        level=args.log_level.upper(), format="[%(asctime)s] %(message)s", datefmt="%Y-%m-%d %H:%M:%S", force=True
    )
    server_args = MossServerArgs.from_cli_args(args)
    server_args._launch_command = " ".join(without_secrets(argv))
    return server_args


def without_secrets(argv: Sequence[str]) -> list[str]:
    """A command line to show: keys are replaced by stars."""
    shown: list[str] = []
    for arg in argv:
        flag, equals, _ = arg.partition("=")
        if shown and shown[-1] in _SECRETS:
            shown.append("***")
        elif equals and flag in _SECRETS:
            shown.append(f"{flag}=***")
        else:
            shown.append(arg)
    return shown


def wait_until_it_listens(server_args: Any) -> bool:
    """In the place of SGLang's warm-up request, which has no audio in it; ours ran before the server listened.

    Returns:
        False: SGLang does nothing more, such as to ask the server over HTTP for what `warmup` has done.
    """
    from sglang.srt.entrypoints import http_server
    from sglang.srt.managers.tokenizer_manager import ServerStatus

    address = urlsplit(server_args.url())
    deadline = time.monotonic() + _LISTENS_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address.hostname, address.port), timeout=_LISTENS_SECONDS).close()
            break
        except OSError:
            time.sleep(_POLL_SECONDS)
    manager: Any = http_server.get_global_state().tokenizer_manager
    manager.server_status = ServerStatus.Up
    logger.info(
        "The server is fired up and ready to roll! It listens at %s, and its page opens there too", server_args.url()
    )
    return False
