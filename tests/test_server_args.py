"""Our server arguments: flag and model belong together, what cannot work is refused by name, and keys stay secret."""

import argparse
import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fresh_process import in_fresh_process
from golden_data import GOLDEN
from sglang.srt.arg_groups.arg_utils import field_names, record_fields
from sglang.srt.server_args import ServerArgs

from sglang_moss import plugin, serve_backend, server_args
from sglang_moss.checkpoint import ARCHITECTURE, OWN_FIELD, TTS_ARCHITECTURE, is_fused
from sglang_moss.server_args import WARMUP, MossServerArgs, bound_kv_cache, serves_speech
from sglang_moss.supported_args import FREE, RADIX_CACHE_BACKEND, SUPPORTED, refuse_unsupported

pytestmark = pytest.mark.wide

# Arguments that would pass by our layers, or break one token a row, and what people would want to know of them.
UNSUPPORTED = {
    "pp_size": (2, "--pp-size 2 .*use --dp-size"),
    "attn_dp_size": (2, "--attn-dp-size 2 .*use --dp-size"),
    "enable_dp_attention": (True, "--enable-dp-attention .*use --dp-size"),
    "load_balance_method": ("total_tokens", "--load-balance-method total_tokens .*knows its voice"),
    "dcp_size": (2, "--dcp-size 2"),
    "nnodes": (2, "--nnodes 2 .*start one on each, behind a proxy"),
    "tokenizer_worker_num": (2, "--tokenizer-worker-num 2"),
    "detokenizer_worker_num": (2, "--detokenizer-worker-num 2"),
    "grpc_port": (50051, "--grpc-port 50051"),
    "grpc_mode": (True, "--grpc-mode"),
    "smg_grpc_mode": (True, "--smg-grpc-mode"),
    "enable_http2": (True, "--enable-http2"),
    "use_ray": (True, "--use-ray"),
    "speculative_algorithm": ("EAGLE", "--speculative-algorithm EAGLE .*cannot be rolled back; --tp-size"),
    "decoupled_spec_role": ("verifier", "--decoupled-spec-role verifier"),
    "disaggregation_mode": ("prefill", "--disaggregation-mode prefill .*use --dp-size"),
    "enable_pdmux": (True, "--enable-pdmux"),
    "encoder_only": (True, "--encoder-only"),
    "language_only": (True, "--language-only"),
    "language_model_only": (True, "--language-model-only"),
    "dllm_algorithm": ("x", "--dllm-algorithm x"),
    "enable_two_batch_overlap": (True, "--enable-two-batch-overlap"),
    "enable_mixed_chunk": (True, "--enable-mixed-chunk"),
    "cuda_graph_backend_prefill": ("tc_piecewise", "--cuda-graph-backend-prefill tc_piecewise .*'full' capture"),
    "cuda_graph_config": ("{}", "--cuda-graph-config"),
    "page_size": (128, "--page-size 128"),
    "enable_hierarchical_cache": (True, "--enable-hierarchical-cache"),
    "enable_session_radix_cache": (True, "--enable-session-radix-cache"),
    "enable_unified_cache_external_linker": (True, "--enable-unified-cache-external-linker"),
    "enable_lmcache": (True, "--enable-lmcache"),
    "enable_flexkv": (True, "--enable-flexkv"),
    "radix_cache_backend": ("another", "--radix-cache-backend another"),
    "enable_streaming_session": (True, "--enable-streaming-session"),
    "enable_lora": (True, "--enable-lora .*merge the adapter"),
    "lora_paths": (["/a/path"], "--lora-paths"),
    "enable_tokenizer_batch_encode": (True, "--enable-tokenizer-batch-encode"),
    "enable_dynamic_batch_tokenizer": (True, "--enable-dynamic-batch-tokenizer"),
    "enable_custom_logit_processor": (True, "--enable-custom-logit-processor"),
    "enable_return_hidden_states": (True, "--enable-return-hidden-states"),
    "return_hidden_states_mode": ("x", "--return-hidden-states-mode"),
    "enable_return_aux_hidden_states": (True, "--enable-return-aux-hidden-states"),
    "enable_watermark": (True, "--enable-watermark"),
    "enable_response_store": (True, "--enable-response-store"),
    "enable_memory_saver": (True, "--enable-memory-saver"),
    "skip_tokenizer_init": (True, "--skip-tokenizer-init"),
    "is_embedding": (True, "--is-embedding"),
    "quantization": ("awq", "--quantization awq"),
    "log_requests": (True, "--log-requests .*--access-log"),
    "forward_hooks": ([{"x": 1}], "--forward-hooks"),
}
OUR_FLAGS = ["--codec-slots", "3", "--reference-max-seconds", "7.5", "--reference-max-bytes", "1000"]
OUR_FLAGS += ["--voice-alias", "alloy=alice", "--voice-alias", "nova=bob", "--default-voice", "alice"]
OUR_FLAGS += ["--disable-reference-urls", "--reference-cache-mb", "5", "--warmups", "theirs"]


def parse(arguments: list[str]) -> ServerArgs:
    """What our backend makes of the command line of `sglang serve`."""
    plugin.register()
    return serve_backend.parse(arguments)


@pytest.fixture(scope="module")
def served(fused_path: Path) -> Any:
    """Arguments of a server of ours; they have been pickled on their way here, as on that to the scheduler process."""
    arguments = ["--model-path", str(fused_path), "--delay-pattern", *OUR_FLAGS, "--reference-root", str(fused_path)]
    return in_fresh_process(parse, arguments)


def test_a_fused_model_is_served_as_speech_without_the_flag(fused_path):
    args = MossServerArgs(model_path=str(fused_path))
    assert serves_speech(args)
    assert args.codec_address.startswith("ipc:///")


@pytest.mark.parametrize(("tp_size", "said"), [(3, "num_attention_heads, 4"), (8, "num_attention_heads")])
def test_a_model_that_ranks_cannot_share_is_refused_before_it_is_loaded(fused_path, tp_size, said):
    with pytest.raises(SystemExit, match=f"--tp-size {tp_size} .*{said}"):
        MossServerArgs(model_path=str(fused_path), tp_size=tp_size)


def _graphs_of_prefill(fused_path: Path, monkeypatch: pytest.MonkeyPatch, *, hopper: bool = True, **given: Any) -> str:
    monkeypatch.setattr(server_args, "is_cuda", lambda: True)
    monkeypatch.setattr(server_args, "is_hopper_with_cuda_12_3", lambda: hopper)
    monkeypatch.setattr(server_args, "get_device_memory_capacity", lambda _device: 80_000)
    return MossServerArgs(model_path=str(fused_path), **given).cuda_graph_backend_prefill


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"attention_backend": "fa3"},
        {"kv_cache_dtype": "fp8_e4m3"},
        {"dtype": "float16"},
        {"enable_deterministic_inference": True},
    ],
)
def test_prefill_is_captured_whole_where_that_is_asked_for(given, fused_path, monkeypatch):
    assert _graphs_of_prefill(fused_path, monkeypatch, **given) == "breakable"
    assert _graphs_of_prefill(fused_path, monkeypatch, cuda_graph_backend_prefill="full", **given) == "full"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hopper": False}, "need a Hopper GPU"),
        ({"attention_backend": "flashinfer"}, "need --attention-backend fa3"),
        ({"kv_cache_dtype": "fp8_e5m2"}, "leaves for a cache in fp8_e5m2"),
        ({"dtype": "float32"}, "need a dtype of 16 bits"),
        ({"page_size": 16}, "pages of several rows"),
        ({"tp_size": 2}, "several GPUs"),
        ({"dp_size": 2}, "several GPUs"),
        ({"device": "cpu"}, "need a Hopper GPU"),
    ],
)
def test_whole_graphs_of_prefill_are_refused_where_they_have_not_run(given, said, fused_path, monkeypatch):
    assert _graphs_of_prefill(fused_path, monkeypatch, **given) in (None, "breakable")
    with pytest.raises(SystemExit, match=f"--cuda-graph-backend-prefill full: full graphs .*{said}.*; leave it out"):
        _graphs_of_prefill(fused_path, monkeypatch, cuda_graph_backend_prefill="full", **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "need a Hopper GPU"), ({"device": "cpu"}, None), ({"device": "cpu", "tp_size": 2}, "ranks")],
)
def test_fused_layers_are_refused_where_they_cannot_run(given, said, fused_path, monkeypatch):
    monkeypatch.setattr(server_args, "is_cuda", lambda: True)
    monkeypatch.setattr(server_args, "is_hopper_with_cuda_12_3", lambda: False)
    monkeypatch.setattr(server_args, "get_device_memory_capacity", lambda _device: 80_000)
    assert MossServerArgs(model_path=str(fused_path), **given).decoding_layers == "stock"
    if said is None:
        assert MossServerArgs(model_path=str(fused_path), decoding_layers="fused", **given).decoding_layers == "fused"
        return
    with pytest.raises(SystemExit, match=f"--decoding-layers fused: .*{said}.*; leave it out"):
        MossServerArgs(model_path=str(fused_path), decoding_layers="fused", **given)


def test_only_a_server_of_one_rank_lets_streams_yield(fused_path):
    assert MossServerArgs(model_path=str(fused_path), yield_above=96).yield_above == 96
    with pytest.raises(SystemExit, match=r"--yield-above does not go with --tp-size 2: .*; leave it out"):
        MossServerArgs(model_path=str(fused_path), yield_above=96, tp_size=2)


@pytest.mark.parametrize("tp_size", [1, 2, 4])  # of two key/value heads
def test_ranks_share_heads_or_repeat_them(fused_path, tp_size):
    assert MossServerArgs(model_path=str(fused_path), tp_size=tp_size).tp_size == tp_size


def test_another_model_keeps_the_stock_arguments():
    args = MossServerArgs(model_path=str(GOLDEN / "ttsd"), tp_size=2, enable_lora=True)
    stock = ServerArgs(model_path=str(GOLDEN / "ttsd"), tp_size=2, enable_lora=True)
    assert not serves_speech(args)
    assert {name: getattr(args, name) for name in field_names(ServerArgs)} == msgspec.structs.asdict(stock)


@pytest.mark.parametrize("model", [str(GOLDEN / "ttsd"), str(GOLDEN / "codec"), "/no/such/folder", "some/model"])
def test_the_flag_with_another_model_stops_and_says_how_to_make_one(model):
    with pytest.raises(SystemExit, match=rf"{re.escape(model)}.*; .*sglang_moss\.fuse.*--delay-pattern"):
        MossServerArgs(model_path=model, delay_pattern=True)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_argument_that_does_not_go_with_ours_is_refused_by_name(name, fused_path):
    value, sentence = UNSUPPORTED[name]
    flag, _, reason = sentence.partition(" .*")
    settings: dict[str, Any] = {name: value}
    with pytest.raises(SystemExit, match=rf"^sglang_moss: {flag}.* does not go with --delay-pattern: .*{reason}"):
        MossServerArgs(model_path=str(fused_path), delay_pattern=True, **settings)


def test_every_argument_that_is_not_on_the_list_is_refused():
    """Also those of a release to come: whatever SGLang knows has its default, or is on the list."""
    for field in record_fields(ServerArgs):
        args = ServerArgs(model_path="a/model")
        setattr(args, field.name, "an odd value")
        if field.name in FREE:
            refuse_unsupported(args)
        else:
            with pytest.raises(SystemExit, match=f"--{field.name.replace('_', '-')} an odd value does not go"):
                refuse_unsupported(args)


def test_the_list_holds_nothing_but_arguments_of_sglang_and_their_defaults():
    assert set(SUPPORTED) <= field_names(ServerArgs)
    refuse_unsupported(ServerArgs(model_path="a/model"))


@pytest.mark.parametrize("page_size", [None, 1, 16, 64])
def test_page_sizes_that_are_tested_are_taken(page_size, fused_path):
    assert MossServerArgs(model_path=str(fused_path), page_size=page_size).page_size == page_size


@pytest.mark.parametrize("variable", ["SGLANG_RUST_SERVER", "SGLANG_GRPC_PORT"])
def test_another_front_is_refused_wherever_it_is_asked_for(variable, fused_path, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SystemExit, match=rf"{variable} does not go with --delay-pattern: .*; unset it"):
        MossServerArgs(model_path=str(fused_path))
    monkeypatch.setenv(variable, "0")
    MossServerArgs(model_path=str(fused_path))


def test_a_reference_root_that_is_no_folder_is_refused(fused_path):
    file = str(fused_path / "config.json")
    with pytest.raises(SystemExit, match=f"--reference-root {file} is no folder"):
        MossServerArgs(model_path=str(fused_path), delay_pattern=True, reference_root=file)


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("codec_slots", 1, 2),
        ("codec_voices", -1, 0),
        ("reference_cache_mb", -1, 0),
        ("max_voices", -1, 0),
        ("max_queued_speech", -1, 0),
        ("rate_limit", 0, 1),
        ("yield_above", 0, 1),
        ("max_request_bytes", 999, 1_000_000),
        ("request_body_seconds", 0.5, 1),
        ("shutdown_seconds", -1.0, 0),
        ("max_audio_seconds", 0.5, 1),
        ("speech_length_factor", -1.0, 0),
    ],
)
def test_a_number_below_its_least_is_refused_by_its_flag(name, value, least, fused_path):
    flag = name.replace("_", "-")
    settings: dict[str, Any] = {name: value}
    with pytest.raises(SystemExit, match=f"--{flag} is at least {least}, got {value}"):
        MossServerArgs(model_path=str(fused_path), delay_pattern=True, **settings)


def test_our_flags_reach_the_arguments(served, fused_path):
    assert type(served) is MossServerArgs
    assert (served.delay_pattern, served.codec_slots, served.reference_cache_mb) == (True, 3, 5)
    assert (served.reference_limits.max_seconds, served.reference_limits.max_bytes) == (7.5, 1000)
    assert (served.voice_alias, served.default_voice) == (["alloy=alice", "nova=bob"], "alice")
    policy = served.source_policy
    assert (policy.allow_urls, policy.allow_private_urls) == (False, False)
    assert (policy.path_root, policy.max_bytes) == (fused_path, 1000)


def test_the_server_is_set_up_for_speech(served):
    assert served.radix_cache_backend == RADIX_CACHE_BACKEND
    assert served.incremental_streaming_output
    assert served.sleep_on_idle
    assert served.max_running_requests > 0
    assert served.max_queued_speech == 4 * served.max_running_requests
    assert not served.skip_server_warmup
    assert served.warmups == f"theirs,{WARMUP}"
    assert served.codec_address.startswith("ipc:///")


def test_a_server_without_warm_up_runs_none_of_ours(fused_path):
    args = MossServerArgs(model_path=str(fused_path), skip_server_warmup=True)
    assert (args.warmups, args.skip_server_warmup) == (None, False)
    assert pickle.loads(pickle.dumps(args)).warmups is None


def resolved(args: MossServerArgs) -> tuple[dict[str, Any], str, int]:
    """What SGLang makes of the arguments, what it logs of them, and the rows of KV cache it may take."""
    from sglang.srt.entrypoints.engine import _server_args_for_logging
    from sglang.srt.runtime_context import get_schedule, get_serving, publish

    plugin.register()
    publish(args, role="tokenizer")
    shown = {"served_model_name": get_serving().served_model_name, "sleep_on_idle": args.sleep_on_idle}
    return shown, str(_server_args_for_logging(args)), get_schedule().max_total_tokens


def test_sglang_resolves_what_is_left_open_and_logs_no_key(served):
    args = copy.copy(served)
    args.api_key = args.admin_api_key = "hunter2"
    shown, log, n_rows = in_fresh_process(resolved, args)
    assert shown == {"served_model_name": "moss-ttsd", "sleep_on_idle": True}
    assert "hunter2" not in log
    assert log.count("'***'") == 2
    assert "'codec_slots': 3" in log
    assert n_rows == 65_536, "the platform without a GPU asks for no more"


def bounded(args: MossServerArgs) -> tuple[int | None, list[Any]]:
    """`max_total_tokens` after our step of the resolution."""
    from sglang.srt.arg_groups.overrides import resolving_view

    passed_on: list[Any] = []
    bound_kv_cache(args, passed_on.append)
    return resolving_view(args).max_total_tokens, passed_on


def test_the_kv_cache_holds_no_more_than_all_requests_could_fill(fused_path):
    args = MossServerArgs(model_path=str(fused_path), max_running_requests=3, context_length=100)
    assert bounded(args) == (400, [args])
    args = MossServerArgs(model_path=str(fused_path), max_running_requests=3, max_total_tokens=7)
    assert bounded(args) == (7, [args])
    other = MossServerArgs(model_path=str(GOLDEN / "ttsd"))
    assert bounded(other) == (None, [other])


def test_two_servers_have_codecs_of_their_own(served, fused_path):
    other = in_fresh_process(parse, ["--model-path", str(fused_path), "--delay-pattern"])
    assert other.codec_address != served.codec_address
    assert other.warmups == WARMUP


def test_pickling_keeps_everything(served):
    again = pickle.loads(pickle.dumps(served))
    assert type(again) is MossServerArgs
    assert again == served


@pytest.mark.parametrize("secret", ["api_key", "admin_api_key", "ssl_keyfile_password"])
def test_a_secret_is_not_shown(served, secret):
    args = copy.copy(served)
    setattr(args, secret, "hunter2")
    for shown in (repr(args), str(args), f"{args=}"):
        assert "hunter2" not in shown
        assert f"{secret}='***'" in shown
    assert f"{secret}=None" in repr(served)
    assert f"model_path={served.model_path!r}" in repr(args)


@pytest.mark.parametrize(
    ("config", "fused"),
    [
        ({"architectures": [ARCHITECTURE]}, True),
        ({"architectures": [TTS_ARCHITECTURE]}, True),
        ({"architectures": ["Qwen3ForCausalLM", ARCHITECTURE]}, True),
        ({"architectures": ["Qwen3ForCausalLM"]}, False),
        ({"architectures": None}, False),
        ({}, False),
        ([], False),
        ("text", False),
        (None, False),
    ],
)
def test_a_fused_checkpoint_is_known_by_its_architecture(tmp_path, config, fused):
    assert not is_fused(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert is_fused(str(tmp_path)) is fused
    (tmp_path / "config.json").write_bytes(b"\xff not json")
    assert not is_fused(str(tmp_path))


@pytest.mark.parametrize(
    ("profile", "name"), [(None, "moss-ttsd"), ("tts", "moss-tts"), ("sound", "moss-sound-effect")]
)
def test_a_model_of_the_family_is_served_by_its_own_name(tmp_path, fused_path, profile, name):
    config = json.loads((fused_path / "config.json").read_text())
    own = {} if profile is None else {OWN_FIELD: {"profile": profile}}
    (tmp_path / "config.json").write_text(json.dumps(config | own))
    assert MossServerArgs(model_path=str(tmp_path)).served_model_name == name
    (tmp_path / "config.json").write_text(json.dumps(config | {OWN_FIELD: {"profile": "song"}}))
    with pytest.raises(SystemExit, match="the checkpoint's profile is 'song', known are"):
        MossServerArgs(model_path=str(tmp_path))


def test_every_field_of_ours_but_the_address_is_a_flag_with_a_help_text():
    stock, parser = argparse.ArgumentParser(), argparse.ArgumentParser()
    ServerArgs.add_cli_args(stock)
    MossServerArgs.add_cli_args(parser)
    ours = [action for action in parser._actions if action.dest not in {a.dest for a in stock._actions}]
    defaults = {field.name: field.default for field in record_fields(MossServerArgs)}
    expected = set(defaults) - field_names(ServerArgs) - {"codec_address"}
    assert {action.dest for action in ours} == expected
    for action in ours:
        assert action.default == defaults[action.dest]
        assert len((action.help or "").split()) > 3
