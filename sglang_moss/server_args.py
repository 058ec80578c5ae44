"""SGLang's server arguments with ours: `--delay-pattern` and what goes with it.

This module is imported in every process of the server, wherever the arguments are unpickled, so it stays light.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang.srt.arg_groups.arg_utils import A, Arg, add_cli_args_from_dataclass
from sglang.srt.server_args import ServerArgs

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.sources import SourcePolicy
from sglang_moss.config import ARCHITECTURE

WARMUP = "sglang_moss"
RADIX_CACHE_BACKEND = "sglang_moss"
_DEFAULT_MAX_RUNNING_REQUESTS = 128
_QUEUED_PER_RUNNING = 4
_SECRETS = ("api_key", "admin_api_key", "ssl_keyfile_password")

# Features of SGLang that assume one token a row, a shared prefix of generated rows, or client code in the sampler.
_UNSUPPORTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tp_size": (lambda n: n > 1, "--tp-size above 1"),
    "pp_size": (lambda n: n > 1, "--pp-size above 1"),
    "dp_size": (lambda n: n > 1, "--dp-size above 1"),
    "nnodes": (lambda n: n > 1, "--nnodes above 1"),
    "tokenizer_worker_num": (lambda n: n > 1, "--tokenizer-worker-num above 1"),
    "speculative_algorithm": (bool, "--speculative-algorithm"),
    "disaggregation_mode": (lambda mode: mode != "null", "--disaggregation-mode"),
    "enable_mixed_chunk": (bool, "--enable-mixed-chunk"),
    "enable_hierarchical_cache": (bool, "--enable-hierarchical-cache"),
    "enable_streaming_session": (bool, "--enable-streaming-session"),
    "enable_lora": (bool, "--enable-lora"),
    "lora_paths": (bool, "--lora-paths"),
    "enable_tokenizer_batch_encode": (bool, "--enable-tokenizer-batch-encode"),
    "enable_custom_logit_processor": (bool, "--enable-custom-logit-processor"),
    "enable_return_hidden_states": (bool, "--enable-return-hidden-states"),
    "enable_memory_saver": (bool, "--enable-memory-saver"),
    "preferred_sampling_params": (bool, "--preferred-sampling-params"),
    "skip_tokenizer_init": (bool, "--skip-tokenizer-init"),
    "is_embedding": (bool, "--is-embedding"),
    "radix_cache_backend": (lambda name: name not in (None, RADIX_CACHE_BACKEND), "--radix-cache-backend"),
}
_LEAST = {
    "codec_slots": 2,
    "codec_voices": 0,
    "reference_cache_mb": 0,
    "max_voices": 0,
    "max_queued_speech": 0,
    "rate_limit": 1,
    "max_request_bytes": 1_000_000,
    "request_body_seconds": 1,
    "shutdown_seconds": 0,
}


@dataclass
class MossServerArgs(ServerArgs):
    """`ServerArgs` of a server that may serve MOSS-TTSD; without `delay_pattern`, the stock arguments.

    Raises:
        SystemExit: `delay_pattern` and the model do not belong together, or an argument does not go with it.
    """

    delay_pattern: A[bool, Arg(help="Serve a fused MOSS-TTSD checkpoint.")] = False
    codec_slots: A[
        int | None,
        Arg(
            type_parser=int,
            help="Streams that the codec decodes at a time; others wait for a slot. By default one a request, "
            "within a tenth of the GPU's memory.",
        ),
    ] = None
    codec_voices: A[int, Arg(help="Voices whose decoder state after the prompt audio is kept on the GPU.")] = 8
    codec_dtype: A[
        str,
        Arg(
            choices=["auto", "float16", "bfloat16", "float32"],
            help="Weights and caches of the codec's decoder; auto is float16 on a GPU and float32 without one.",
        ),
    ] = "auto"
    reference_max_seconds: A[float, Arg(help="Longest reference clip, in seconds.")] = ReferenceLimits.max_seconds
    reference_max_bytes: A[int, Arg(help="Largest file of a reference clip, in bytes.")] = ReferenceLimits.max_bytes
    reference_cache_mb: A[int, Arg(help="Host memory for codes of known references, in MB.")] = 256
    reference_root: A[str | None, Arg(help="Folder whose files clients may name as references; none by default.")] = (
        None
    )
    disable_reference_urls: A[bool, Arg(help="Refuse http(s) URLs as references.")] = False
    allow_private_reference_urls: A[bool, Arg(help="Fetch references from private and loopback addresses too.")] = False
    voices_dir: A[str | None, Arg(help="Folder of the voices that clients upload; ~/.cache/sglang-moss/voices.")] = None
    max_voices: A[int, Arg(help="Voices that may be stored.")] = 1000
    max_queued_speech: A[
        int | None,
        Arg(
            type_parser=int,
            help="Requests for speech that may wait beside those that run; more are told to come again (429). "
            "Four times --max-running-requests by default.",
        ),
    ] = None
    rate_limit: A[
        int | None, Arg(type_parser=int, help="Requests a minute that one client's address may send; any by default.")
    ] = None
    max_request_bytes: A[
        int | None,
        Arg(type_parser=int, help="Largest body of a request; by default what five references of full size take."),
    ] = None
    request_body_seconds: A[float, Arg(help="Time in which the body of a request must have come.")] = 300.0
    access_log: A[
        str,
        Arg(choices=["json", "off"], help="One line of JSON for each request that speaks, without its words or sound."),
    ] = "json"
    shutdown_seconds: A[float, Arg(help="Time that running requests have to finish after SIGTERM or Ctrl-C.")] = 30.0
    codec_address: str | None = None  # where the codec listens; made up at start

    def __post_init__(self) -> None:
        fused = is_fused(self.model_path)
        if self.delay_pattern and not fused:
            raise SystemExit(
                f"sglang_moss: --delay-pattern serves fused MOSS-TTSD checkpoints, but {self.model_path} is none; "
                "make one with `python -m sglang_moss.fuse`, or leave the flag out"
            )
        if fused and not self.delay_pattern:
            raise SystemExit(f"sglang_moss: {self.model_path} is a fused MOSS-TTSD checkpoint: add --delay-pattern")
        if self.delay_pattern:
            self._refuse_unsupported()
            self._set_defaults()
        super().__post_init__()
        if self.delay_pattern and self.max_total_tokens is None:
            # More could never be used; a tiny model on a large card would ask for it.
            n_requests = self.max_running_requests or _DEFAULT_MAX_RUNNING_REQUESTS
            max_total_tokens = (n_requests + 1) * self._context_len()
            self.override("sglang_moss", max_total_tokens=max_total_tokens)

    def __repr__(self) -> str:
        """For SGLang's start-up log, which would print keys in clear."""
        shown = {field.name: repr(getattr(self, field.name)) for field in dataclasses.fields(self)}
        for name in _SECRETS:
            shown[name] = "***" if getattr(self, name) else shown[name]
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in shown.items())})"

    @property
    def reference_limits(self) -> ReferenceLimits:
        return ReferenceLimits(max_bytes=self.reference_max_bytes, max_seconds=self.reference_max_seconds)

    @property
    def source_policy(self) -> SourcePolicy:
        return SourcePolicy(
            allow_urls=not self.disable_reference_urls,
            allow_private_urls=self.allow_private_reference_urls,
            path_root=Path(self.reference_root) if self.reference_root else None,
            max_bytes=self.reference_max_bytes,
        )

    def _refuse_unsupported(self) -> None:
        for name, (is_set, flag) in _UNSUPPORTED.items():
            if is_set(getattr(self, name)):
                raise SystemExit(f"sglang_moss: {flag} does not go with --delay-pattern; leave it out")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SystemExit(f"sglang_moss: --{name.replace('_', '-')} is at least {least}, got {value}")
        if self.reference_root and not Path(self.reference_root).is_dir():
            raise SystemExit(f"sglang_moss: --reference-root {self.reference_root} is no folder")

    def _context_len(self) -> int:
        config = json.loads((Path(self.model_path) / "config.json").read_text(encoding="utf-8"))
        return self.context_length or config["language_config"]["max_position_embeddings"]

    def _set_defaults(self) -> None:
        if self.max_running_requests is None:
            self.max_running_requests = _DEFAULT_MAX_RUNNING_REQUESTS
        if self.max_queued_speech is None:
            self.max_queued_speech = _QUEUED_PER_RUNNING * self.max_running_requests
        if self.log_level_http is None:
            self.log_level_http = (
                "warning"  # the access log is ours: uvicorn's has paths, and with them names of voices
            )
        if self.codec_address is None:
            self.codec_address = (
                f"ipc://{Path(tempfile.gettempdir()) / f'sglang-moss-{os.getpid()}-{uuid.uuid4().hex}'}"
            )
        if not self.skip_server_warmup:  # SGLang's own warm-up has no audio in it
            self.skip_server_warmup = True
            self.warmups = f"{self.warmups},{WARMUP}" if self.warmups else WARMUP
        self.radix_cache_backend = RADIX_CACHE_BACKEND
        self.incremental_streaming_output = True  # an event carries what is new
        self.sleep_on_idle = True  # a spinning scheduler would take the interpreter away from the codec's thread


def serves_speech(server_args: Any) -> bool:
    """Whether these arguments are those of a server of our model."""
    return bool(getattr(server_args, "delay_pattern", False))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add our fields to the command line of `sglang serve`."""
    stock = {field.name for field in dataclasses.fields(ServerArgs)}
    ours = [field.name for field in dataclasses.fields(MossServerArgs) if field.name not in stock]
    add_cli_args_from_dataclass(parser, MossServerArgs, fields=ours)


def is_fused(model_path: str) -> bool:
    """Whether a directory holds a fused checkpoint; False for anything that is not a directory with a config."""
    try:
        config = json.loads((Path(model_path) / "config.json").read_text(encoding="utf-8"))
        return ARCHITECTURE in (config.get("architectures") or ())
    except (OSError, ValueError, AttributeError, TypeError):
        return False
