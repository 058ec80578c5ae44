"""Which of SGLang's server arguments go with speech: a list of what is known to work, and a sentence for all else.

SGLang has more than five hundred arguments, and every release brings new ones. Many would pass by our layers (another
front), break one token a row, or share generated rows, so an argument is taken because it is on this list, and every
other one must have its default.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from sglang.srt.arg_groups.arg_utils import record_fields
from sglang.srt.server_args import ServerArgs

RADIX_CACHE_BACKEND = "sglang_moss"


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


# Arguments that may have any value that SGLang takes.
FREE = frozenset(
    (
        "model_path",
        "trust_remote_code",  # no code of the checkpoint is run either way
        "context_length",
        "weight_loader_disable_mmap",
        "weight_loader_prefetch_checkpoints",
        "weight_loader_prefetch_num_threads",
        "weight_loader_drop_cache_after_load",
        # HTTP
        "host",
        "port",
        "fastapi_root_path",
        "api_key",
        "admin_api_key",
        "ssl_keyfile",
        "ssl_certfile",
        "ssl_ca_certs",
        "ssl_keyfile_password",
        "served_model_name",
        "skip_server_warmup",
        "warmups",
        "incremental_streaming_output",
        # Scheduling and memory
        "mem_fraction_static",
        "max_running_requests",
        "max_queued_requests",
        "max_total_tokens",
        "chunked_prefill_size",
        "max_prefill_tokens",
        "prefill_max_requests",
        "prefill_decode_interval",
        "prefill_decode_interval_min_bs",
        "schedule_policy",
        "schedule_conservativeness",
        "enable_priority_scheduling",
        "disable_priority_preemption",
        "default_priority_value",
        "abort_on_priority_when_disabled",
        "schedule_low_priority_values_first",
        "priority_scheduling_preemption_threshold",
        "disable_overlap_schedule",
        "disable_radix_cache",
        "radix_eviction_policy",
        "_radix_eviction_policy_explicitly_set",
        # Kernels and graphs
        "disable_cuda_graph",
        "disable_decode_cuda_graph",
        "disable_prefill_cuda_graph",
        "disable_cuda_graph_padding",
        "enable_profile_cuda_graph",
        "cuda_graph_bs_decode",
        "cuda_graph_max_bs_decode",
        "cuda_graph_bs_prefill",
        "cuda_graph_max_bs_prefill",
        "fp8_gemm_runner_backend",
        "disable_flashinfer_autotune",
        "triton_attention_num_kv_splits",
        "triton_attention_reduce_in_fp32",
        "enable_deterministic_inference",
        "disable_custom_all_reduce",
        # Several GPUs
        "tp_size",
        "dp_size",
        "gpu_id_step",
        # Process and log
        "grammar_backend",  # speech has no grammar
        "base_gpu_id",
        "nccl_port",
        "random_seed",
        "watchdog_timeout",
        "soft_watchdog_timeout",
        "sleep_on_idle",
        "numa_node",
        "gc_threshold",
        "log_level",
        "log_level_http",
        "uvicorn_access_log_exclude_prefixes",
        "decode_log_interval",
        "enable_metrics",
        "bucket_time_to_first_token",
        "bucket_inter_token_latency",
        "bucket_e2e_request_latency",
        "prompt_tokens_buckets",
        "generation_tokens_buckets",
        "enable_cache_report",
    )
)
# By name, whether a value is supported.
SUPPORTED: dict[str, Callable[[Any], bool]] = {
    # The model: a fused directory, in a dtype and a quantisation that have been compared with the reference.
    "load_format": _one_of("auto", "safetensors", "dummy"),
    "dtype": _one_of("auto", "float16", "half", "bfloat16", "float", "float32"),
    "quantization": _one_of(None, "fp8"),
    "kv_cache_dtype": _one_of("auto", "fp8_e5m2", "fp8_e4m3", "bf16", "bfloat16"),
    "attention_backend": _one_of(
        None, "fa3", "flashinfer", "triton", "trtllm_mha", "torch_native", "fa4", "flex_attention"
    ),
    "sampling_backend": _one_of(None, "flashinfer", "pytorch"),  # ours stands under both names
    "page_size": _one_of(None, 1, 16, 32, 64),
    "radix_cache_backend": _one_of(None, RADIX_CACHE_BACKEND),
    # Rows are read on the host and embedded before the backbone, which is all that these capture.
    "cuda_graph_backend_prefill": _one_of(None, "disabled", "breakable", "full"),
    "cuda_graph_backend_decode": _one_of(None, "disabled", "full"),
    "device": _one_of(None, "cuda", "cpu"),
    **dict.fromkeys(FREE, lambda _value: True),
}

# Why, and what to do instead, for what people ask for.
_REPLICAS = "use --dp-size for more requests, --tp-size for a faster one"
_NO_DP_ATTENTION = (
    f"it spares what models with latent attention or experts repeat, and this one has neither; {_REPLICAS}"
)
_REASONS = {
    "pp_size": f"the first stage would wait for the codes that the last one draws, row by row; {_REPLICAS}",
    "attn_dp_size": _NO_DP_ATTENTION,
    "enable_dp_attention": _NO_DP_ATTENTION,
    "load_balance_method": "a request goes to the rank that knows its voice, unless that has more than its share",
    "nnodes": "a server of speech stands on one machine; start one on each, behind a proxy as docs/scaling.md has it",
    "speculative_algorithm": "a row is drawn from its own slot's state, which cannot be rolled back; "
    "--tp-size or --quantization fp8 make a request faster",
    "disaggregation_mode": "a slot's state is filled where the prompt is prefilled, and nothing carries it to another "
    "server; use --dp-size, or several servers behind a proxy",
    "enable_mixed_chunk": "a step either prefills or decodes",
    "enable_lora": "adapters of the audio heads are not supported; merge the adapter into the checkpoint",
    "lora_paths": "adapters of the audio heads are not supported; merge the adapter into the checkpoint",
    "cuda_graph_backend_prefill": "prefill reads rows on the host; 'breakable' and 'full' capture what follows",
    "enable_hierarchical_cache": "the prefix cache is kept on the GPU",
    "cuda_graph_config": "name the graphs' arguments one by one, such as --cuda-graph-max-bs-decode",
    "log_requests": "it would log what is spoken and the voices; every request has a line by --access-log json",
}
_ENVIRONMENT = {
    "SGLANG_RUST_SERVER": "its front would pass by every check of ours",
    "SGLANG_GRPC_PORT": "its front would pass by every check of ours",
}
_OFF = ("", "0", "false", "no", "n")


def refuse_unsupported(server_args: ServerArgs) -> None:
    """
    Raises:
        SystemExit: an argument is not on the list, or has a value that is not; the sentence names it.
    """
    for name in _unsupported(server_args):
        flag = f"--{name.replace('_', '-')}"
        value = getattr(server_args, name)
        shown = flag if isinstance(value, bool) else f"{flag} {value}"
        reason = _REASONS.get(name, "it is not known to work with speech")
        raise SystemExit(f"sglang_moss: {shown:.200} does not go with --delay-pattern: {reason}; leave it out")
    for variable, reason in _ENVIRONMENT.items():
        if os.environ.get(variable, "").lower() not in _OFF:
            raise SystemExit(f"sglang_moss: {variable} does not go with --delay-pattern: {reason}; unset it")


def _unsupported(server_args: ServerArgs) -> Iterator[str]:
    for field in record_fields(ServerArgs):
        value = getattr(server_args, field.name)
        if value != _default(field) and not SUPPORTED.get(field.name, lambda _: False)(value):
            yield field.name


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
