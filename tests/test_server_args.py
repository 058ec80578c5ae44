"""Our server arguments: flag and model belong together, what cannot work is refused by name, and keys stay secret."""

import argparse
import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from fresh_process import in_fresh_process
from golden_data import GOLDEN
from sglang.srt.server_args import ServerArgs

from sglang_moss import plugin
from sglang_moss.config import ARCHITECTURE
from sglang_moss.server_args import RADIX_CACHE_BACKEND, WARMUP, MossServerArgs, add_flags, is_fused

# One value for every argument that does not go with ours, and the flag that the refusal names.
UNSUPPORTED = {
    "tp_size": (2, "--tp-size"),
    "pp_size": (2, "--pp-size"),
    "dp_size": (2, "--dp-size"),
    "nnodes": (2, "--nnodes"),
    "tokenizer_worker_num": (2, "--tokenizer-worker-num"),
    "speculative_algorithm": ("EAGLE", "--speculative-algorithm"),
    "disaggregation_mode": ("prefill", "--disaggregation-mode"),
    "enable_mixed_chunk": (True, "--enable-mixed-chunk"),
    "enable_hierarchical_cache": (True, "--enable-hierarchical-cache"),
    "enable_streaming_session": (True, "--enable-streaming-session"),
    "enable_lora": (True, "--enable-lora"),
    "lora_paths": (["/a/path"], "--lora-paths"),
    "enable_tokenizer_batch_encode": (True, "--enable-tokenizer-batch-encode"),
    "enable_custom_logit_processor": (True, "--enable-custom-logit-processor"),
    "enable_return_hidden_states": (True, "--enable-return-hidden-states"),
    "skip_tokenizer_init": (True, "--skip-tokenizer-init"),
    "is_embedding": (True, "--is-embedding"),
    "radix_cache_backend": ("another", "--radix-cache-backend"),
}
OUR_FLAGS = ["--codec-slots", "3", "--reference-max-seconds", "7.5", "--reference-max-bytes", "1000"]
OUR_FLAGS += ["--disable-reference-urls", "--reference-cache-mb", "5", "--warmups", "theirs"]


def parse_as_sglang_does(arguments: list[str]) -> ServerArgs:
    """What `sglang serve` makes of its command line, once it has loaded our plugin."""
    from sglang.srt.server_args import prepare_server_args

    plugin.register()
    return prepare_server_args(arguments)


@pytest.fixture(scope="module")
def served(fused_path: Path) -> Any:
    """Arguments of a server of ours; they have been pickled on their way here, as on that to the scheduler process."""
    arguments = ["--model-path", str(fused_path), "--delay-pattern", *OUR_FLAGS, "--reference-root", str(fused_path)]
    return in_fresh_process(parse_as_sglang_does, arguments)


def test_a_fused_model_without_the_flag_stops_and_names_it(fused_path):
    with pytest.raises(SystemExit, match="is a fused MOSS-TTSD checkpoint: add --delay-pattern"):
        MossServerArgs(model_path=str(fused_path))


@pytest.mark.parametrize("model", [str(GOLDEN / "ttsd"), str(GOLDEN / "codec"), "/no/such/folder", "some/model"])
def test_the_flag_with_another_model_stops_and_says_how_to_make_one(model):
    with pytest.raises(SystemExit, match=rf"--delay-pattern .* {model} is none; .*sglang_moss\.fuse"):
        MossServerArgs(model_path=model, delay_pattern=True)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_argument_that_does_not_go_with_ours_is_refused_by_name(name, fused_path):
    value, flag = UNSUPPORTED[name]
    settings: dict[str, Any] = {name: value}
    with pytest.raises(SystemExit, match=rf"^sglang_moss: {flag}( above 1)? does not go with --delay-pattern"):
        MossServerArgs(model_path=str(fused_path), delay_pattern=True, **settings)


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
        ("max_request_bytes", 999, 1_000_000),
        ("request_body_seconds", 0.5, 1),
        ("shutdown_seconds", -1.0, 0),
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
    policy = served.source_policy
    assert (policy.allow_urls, policy.allow_private_urls) == (False, False)
    assert (policy.path_root, policy.max_bytes) == (fused_path, 1000)


def test_the_server_is_set_up_for_speech(served):
    assert served.radix_cache_backend == RADIX_CACHE_BACKEND
    assert served.incremental_streaming_output
    assert served.sleep_on_idle
    assert served.max_running_requests > 0
    assert served.max_queued_speech == 4 * served.max_running_requests
    assert served.skip_server_warmup
    assert served.warmups == f"theirs,{WARMUP}"
    assert served.codec_address.startswith("ipc:///")


def rebuild(args: MossServerArgs) -> MossServerArgs:
    plugin.register()
    return dataclasses.replace(args)


def test_building_the_arguments_again_changes_nothing(served):
    assert in_fresh_process(rebuild, served) == served


def test_two_servers_have_codecs_of_their_own(served, fused_path):
    other = in_fresh_process(parse_as_sglang_does, ["--model-path", str(fused_path), "--delay-pattern"])
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
        assert f"{secret}=***" in shown
    assert f"{secret}=None" in repr(served)
    assert f"model_path={served.model_path!r}" in repr(args)


@pytest.mark.parametrize(
    ("config", "fused"),
    [
        ({"architectures": [ARCHITECTURE]}, True),
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


def test_every_field_of_ours_but_the_address_is_a_flag_with_a_help_text():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    stock = {field.name for field in dataclasses.fields(ServerArgs)}
    ours = {field.name: field.default for field in dataclasses.fields(MossServerArgs) if field.name not in stock}
    del ours["codec_address"]
    assert vars(parser.parse_args([])) == ours
    for action in parser._actions[1:]:
        assert len((action.help or "").split()) > 3
