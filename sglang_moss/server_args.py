"""SGLang's server arguments with ours: `--delay-pattern` and what goes with it.

This module is imported in every process of the server, wherever the arguments are unpickled, so it stays light.
"""

import argparse
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sglang.srt.arg_groups.arg_utils import A, Arg, add_cli_args_from_dataclass, record_fields
from sglang.srt.arg_groups.overrides import declare_resolution, resolving_view
from sglang.srt.server_args import ServerArgs
from sglang.srt.utils import get_device_memory_capacity, is_cuda, is_hopper_with_cuda_12_3

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.sources import SourcePolicy
from sglang_moss.backbone.layers import FUSED, STOCK, why_not_fused
from sglang_moss.checkpoint import is_fused, read_config, why_not_served
from sglang_moss.config import profile_of
from sglang_moss.prefill_graphs import BREAKABLE, FULL, why_not_full
from sglang_moss.request.profile import Profile
from sglang_moss.supported_args import RADIX_CACHE_BACKEND, refuse_unsupported

WARMUP = "sglang_moss"
_QUEUED_PER_RUNNING = 4
_CAPTURED_PREFILL_ROWS = 2048  # five prompts whose voices are known; larger batches keep a GPU busy by themselves
_SECRETS = ("api_key", "admin_api_key", "ssl_keyfile_password")

_LEAST = {
    "codec_slots": 2,
    "codec_voices": 0,
    "reference_cache_mb": 0,
    "max_voices": 0,
    "max_queued_speech": 0,
    "yield_above": 1,
    "rate_limit": 1,
    "max_request_bytes": 1_000_000,
    "request_body_seconds": 1,
    "shutdown_seconds": 0,
    "max_audio_seconds": 1,
    "speech_length_factor": 0,
}


_Stock: Any = ServerArgs  # a struct that SGLang puts together at run time


class MossServerArgs(_Stock, kw_only=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
    """`ServerArgs` of a server of MOSS-TTSD, or, where the model is no fused checkpoint, the stock arguments.

    Raises:
        SystemExit: `delay_pattern` and the model do not belong together, or an argument does not go with it.
    """

    delay_pattern: A[bool, Arg(help="Serve a fused MOSS-TTSD checkpoint.")] = False
    codec_slots: A[
        int | None,
        Arg(
            type_parser=int,
            help="Streams that the codec decodes at a time; others wait for a slot. By default enough for "
            "a stream of every request, within 0.15 of the GPU's memory.",
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
    codec_encoder_precision: A[
        str,
        Arg(
            choices=["auto", "ieee", "fp16x3"],
            help="Products of the codec's encoder: ieee in float32, fp16x3 on tensor cores as three of float16 each, "
            "which are nearly as exact; auto is fp16x3 on a Hopper GPU and ieee elsewhere.",
        ),
    ] = "auto"
    decoding_layers: A[
        str,
        Arg(
            choices=[STOCK, FUSED],
            help="What lies between the products of a decoding step's layers: SGLang's kernels, or fewer of ours, on "
            "a Hopper GPU and without --tp-size.",
        ),
    ] = STOCK
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
    starter_voices: A[
        str | None,
        Arg(
            type_parser=str,
            help="Folder of voices that every client finds and none can change, NAME.wav each with what is said in it "
            "in NAME.txt; by default those that come with this package. 'none': none.",
        ),
    ] = None
    max_queued_speech: A[
        int | None,
        Arg(
            type_parser=int,
            help="Requests for speech that may wait beside those that run; more are told to come again (429). "
            "Four times as many as run by default.",
        ),
    ] = None
    yield_above: A[
        int | None,
        Arg(
            type_parser=int,
            help="Requests that a decoding step has while a stream waits for its first sound or is about to run dry: "
            "streams far ahead of their playback, and whole answers, sit out what is beyond. By default nobody does.",
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
    voice_alias: A[
        list[str] | None,
        Arg(
            action="append",
            type_parser=str,
            help="NAME=VOICE: a name that clients send, such as alloy, and the stored voice that it means; repeat it.",
        ),
    ] = None
    default_voice: A[
        str | None,
        Arg(
            type_parser=str,
            help="Stored voice that OpenAI's names (alloy, nova, ...) mean where they are neither stored nor aliases; "
            "'default' is no voice. Without it they are refused.",
        ),
    ] = None
    whole_answers: A[
        bool,
        Arg(
            help="/v1/audio/speech answers once all is spoken, with a Content-Length and a file that knows its length, "
            "where a request does not say `stream`; by default it streams."
        ),
    ] = False
    max_audio_seconds: A[
        float, Arg(help="Longest speech of one request of /v1/audio/speech, in seconds; four hours by default.")
    ] = 14_400.0
    speech_length_factor: A[
        float,
        Arg(
            help="Without max_seconds, /v1/audio/speech cuts a speech at so many times the length that its script "
            "suggests, and 10 s: a model may not come to an end. 0: never."
        ),
    ] = 3.0
    shutdown_seconds: A[float, Arg(help="Time that running requests have to finish after SIGTERM or Ctrl-C.")] = 30.0
    design_url: A[
        str | None,
        Arg(
            type_parser=str,
            help="Server of MOSS-VoiceGenerator with which the page makes voices from descriptions; its key stands in "
            "MOSS_VOICE_API_KEY.",
        ),
    ] = None
    transcript_recogniser: A[
        str,
        Arg(
            choices=["auto", "none", "pocketsphinx", "faster-whisper", "whisper"],
            help="What drafts transcripts of clips on the page; auto: pocketsphinx, for English, if installed.",
        ),
    ] = "auto"
    transcript_model: A[
        str | None, Arg(type_parser=str, help="Its model: a folder, or a name to download; pocketsphinx has its own.")
    ] = None
    script_llm_url: A[
        str | None,
        Arg(
            type_parser=str,
            help="Language model (any with OpenAI's API) with which the page writes scripts about web pages and PDFs, "
            "such as http://127.0.0.1:8000/v1; its key stands in MOSS_LLM_API_KEY. Needs the extra podcast.",
        ),
    ] = None
    script_llm_model: A[str | None, Arg(type_parser=str, help="Name of that language model.")] = None
    check_ranks: A[
        bool,
        Arg(
            help="Count the rows that ranks of --tp-size draw otherwise than the first one, as moss_ttsd:rows_apart; "
            "the first one's rows are taken either way."
        ),
    ] = False
    codec_address: str | None = None  # what the addresses of all codecs begin with; made up at start

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_fused(self.model_path):
            self.delay_pattern = True
        elif self.delay_pattern:
            raise SystemExit(f"sglang_moss: {why_not_served(self.model_path)}")
        if self.delay_pattern and self.codec_address is None:  # else made from a checked one, in another process
            refuse_unsupported(self)
            self._check_own()
            self._set_defaults()

    def __repr__(self) -> str:
        fields = {name: getattr(self, name) for name in _names(type(self))}
        shown = (f"{name}={value!r}" for name, value in _without_secrets(fields).items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def resolved_dict(self) -> dict[str, Any]:
        """For SGLang's start-up log and `/server_info`, which would show keys in clear."""
        return _without_secrets(super().resolved_dict())

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> None:
        """SGLang's arguments and ours."""
        ServerArgs.add_cli_args(parser)
        ours = [name for name in _names(MossServerArgs) if name not in _names(ServerArgs)]
        add_cli_args_from_dataclass(parser, MossServerArgs, fields=ours)

    @property
    def codec_addresses(self) -> list[str]:
        """Where the codecs listen, by data-parallel rank."""
        return [f"{self.codec_address}-{rank}" for rank in range(self.dp_size)]

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

    def _check_own(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SystemExit(f"sglang_moss: --{name.replace('_', '-')} is at least {least}, got {value}")
        self._check_tp_size()
        self._check_prefill_graphs()
        self._check_decoding_layers()
        if self.yield_above is not None and self.tp_size > 1:
            raise SystemExit(
                f"sglang_moss: --yield-above does not go with --tp-size {self.tp_size}: ranks take the same decisions, "
                "and only the first one knows how far streams are ahead; leave it out"
            )
        from sglang_moss.server.page.helpers import check_helpers  # pyright: ignore[reportMissingImports]

        try:
            check_helpers(self)
        except ValueError as error:
            raise SystemExit(f"sglang_moss: {error}") from error
        if self.starter_voices not in (None, "none") and not Path(self.starter_voices).expanduser().is_dir():
            raise SystemExit(f"sglang_moss: --starter-voices {self.starter_voices} is no folder; name one, or none")
        if self.reference_root and not Path(self.reference_root).is_dir():
            raise SystemExit(f"sglang_moss: --reference-root {self.reference_root} is no folder")

    def _check_prefill_graphs(self) -> None:
        if self.cuda_graph_backend_prefill != FULL:
            return
        if reason := why_not_full(self, self._on_gpu() and is_hopper_with_cuda_12_3()):
            raise SystemExit(f"sglang_moss: --cuda-graph-backend-prefill {FULL}: {reason}; leave it out")

    def _check_decoding_layers(self) -> None:
        if self.decoding_layers != FUSED:
            return
        on_gpu = self._on_gpu()
        if reason := why_not_fused(self, on_gpu, on_gpu and is_hopper_with_cuda_12_3()):
            raise SystemExit(f"sglang_moss: --decoding-layers {FUSED}: {reason}; leave it out")

    def _check_tp_size(self) -> None:
        """What SGLang would assert in each rank, after minutes of loading."""
        sizes = read_config(self.model_path)["language_config"]
        for name in ("num_attention_heads", "intermediate_size"):
            if sizes[name] % self.tp_size:
                raise SystemExit(
                    f"sglang_moss: --tp-size {self.tp_size} does not divide this model's {name}, {sizes[name]}; "
                    "take a smaller one"
                )
        n_kv = sizes["num_key_value_heads"]
        if max(n_kv, self.tp_size) % min(n_kv, self.tp_size):
            raise SystemExit(
                f"sglang_moss: --tp-size {self.tp_size} cannot split or repeat this model's {n_kv} key/value heads; "
                "take a divisor of them"
            )

    def context_rows(self) -> int:
        """Rows that one request may have."""
        return self.context_length or read_config(self.model_path)["language_config"]["max_position_embeddings"]

    def profile(self) -> Profile:
        """Which model of the family is served.

        Raises:
            SystemExit: one that this version does not know.
        """
        try:
            return profile_of(SimpleNamespace(**read_config(self.model_path)))
        except ValueError as error:
            raise SystemExit(f"sglang_moss: {self.model_path}: {error}") from None

    def _running_requests(self, on_gpu: bool) -> int:
        from sglang_moss.running_limit import running_requests  # only here: it brings the codec's modules

        codec_config = read_config(self.model_path)["codec_config"]
        memory_mib = get_device_memory_capacity("cuda") if on_gpu else None
        try:
            return running_requests(codec_config, self.codec_dtype, self.codec_slots, memory_mib)
        except ValueError as error:
            raise SystemExit(f"sglang_moss: {self.model_path}: {error}") from None

    def _on_gpu(self) -> bool:
        return is_cuda() and self.device in (None, "cuda")

    def _set_defaults(self) -> None:
        on_gpu = self._on_gpu()
        if self.max_running_requests is None:
            self.max_running_requests = self._running_requests(on_gpu)
        if self.max_queued_speech is None:
            self.max_queued_speech = _QUEUED_PER_RUNNING * self.max_running_requests * self.dp_size
        if self.served_model_name is None:
            self.served_model_name = self.profile().served_as  # else the path of a folder of this machine
        if self.log_level_http is None:
            # The access log is ours: uvicorn's has paths, and with them names of voices.
            self.log_level_http = "warning"
        self.codec_address = f"ipc://{Path(tempfile.gettempdir()) / f'codec-{uuid.uuid4().hex}'}"
        if self.skip_server_warmup:
            # SGLang asks the server for something right after a warm-up that it skips, before the server listens.
            self.skip_server_warmup = False
        else:
            self.warmups = f"{self.warmups},{WARMUP}" if self.warmups else WARMUP
        if on_gpu and not (self.disable_cuda_graph or self.disable_prefill_cuda_graph):
            # SGLang leaves prefill out where a model is multimodal, unless told: embeddings may be made anyhow. Ours
            # are made before the backbone, which alone is captured.
            self.cuda_graph_backend_prefill = self.cuda_graph_backend_prefill or BREAKABLE
            if self.cuda_graph_bs_prefill is None and self.cuda_graph_max_bs_prefill is None:
                self.cuda_graph_max_bs_prefill = _CAPTURED_PREFILL_ROWS
        self.radix_cache_backend = RADIX_CACHE_BACKEND
        self.incremental_streaming_output = True  # an event carries what is new
        self.sleep_on_idle = True  # a spinning scheduler would take the interpreter away from the codec's thread


def serves_speech(server_args: Any) -> bool:
    """Whether these arguments are those of a server of our model."""
    return bool(getattr(server_args, "delay_pattern", False))


def bound_kv_cache(server_args: Any, previous: Callable[[Any], None]) -> None:
    """Step of SGLang's resolution: no more rows of KV cache than requests can fill, where the user names no number.

    A tiny model on a large card would ask for far more.
    """
    if serves_speech(server_args) and resolving_view(server_args).max_total_tokens is None:
        n_rows = (server_args.max_running_requests + 1) * server_args.context_rows()
        declare_resolution(server_args, "sglang_moss", max_total_tokens=n_rows)
    previous(server_args)


def _names(record: type) -> list[str]:
    """Of all fields, in the order in which they stand."""
    return [field.name for field in record_fields(record)]


def _without_secrets(values: dict[str, Any]) -> dict[str, Any]:
    return values | {name: "***" for name in _SECRETS if values.get(name)}
