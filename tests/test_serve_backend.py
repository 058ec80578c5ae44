"""`sglang serve` and our backend: whose command line it is, what it parses to, and what of it is shown."""

from pathlib import Path
from typing import Any

import pytest
from fresh_process import in_fresh_process
from golden_data import GOLDEN
from sglang.cli.serve_backends import ServeBackendDetection, ServeRequest

from sglang_moss import serve_backend

pytestmark = pytest.mark.wide

OTHER_MODEL = str(GOLDEN / "ttsd")


def request(*argv: str, model: str | None = None) -> ServeRequest:
    return ServeRequest(argv=("--model-path", model, *argv) if model else argv, model_path=model)


def chosen_backend(*argv: str, model: str | None = None) -> str:
    """The backend that SGLang itself chooses."""
    from sglang.cli.serve import _create_backend_registry

    return _create_backend_registry().auto_detect(request(*argv, model=model)).name


def test_sglang_finds_our_backend_and_chooses_it_for_fused_checkpoints_and_for_the_flag(fused_path: Path):
    assert chosen_backend(model=str(fused_path)) == "moss-ttsd"
    assert chosen_backend("--delay-pattern", model=str(fused_path)) == "moss-ttsd"
    assert chosen_backend("--delay-pattern", model=OTHER_MODEL) == "moss-ttsd"
    assert chosen_backend("--delay-pattern") == "moss-ttsd"
    assert chosen_backend(model=OTHER_MODEL) == "llm"


@pytest.mark.parametrize("model", [None, "some/model", "/no/such/folder"])
def test_a_model_that_cannot_be_read_is_not_ours(model):
    assert serve_backend.detect(request(model=model)) is ServeBackendDetection.NO_MATCH


def parsed(argv: list[str]) -> Any:
    from sglang_moss import plugin

    plugin.register()
    return serve_backend.parse(argv)


def test_a_config_file_gives_arguments_that_the_command_line_overrules(fused_path: Path, tmp_path: Path):
    config = tmp_path / "server.yaml"
    config.write_text(f"model-path: {fused_path}\ncodec-slots: 5\nport: 1234\nenable-metrics: true\n")
    args = in_fresh_process(parsed, ["--config", str(config), "--port", "4321"])
    assert (args.model_path, args.codec_slots, args.port) == (str(fused_path), 5, 4321)
    assert (args.enable_metrics, args.delay_pattern) == (True, True)


def test_an_unknown_argument_ends_with_status_2(fused_path: Path):
    with pytest.raises(SystemExit) as refused:
        in_fresh_process(parsed, ["--model-path", str(fused_path), "--no-such-flag"])
    assert refused.value.code == 2


def test_keys_are_not_part_of_the_command_that_is_shown(fused_path: Path):
    argv = ["--model-path", str(fused_path), "--api-key", "hunter2", "--admin-api-key=hunter3", "--port", "1"]
    shown = in_fresh_process(parsed, argv).launch_command
    assert shown == f"--model-path {fused_path} --api-key *** --admin-api-key=*** --port 1"


def help_text() -> str:
    import contextlib
    import io

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        serve_backend.run(request("--help"))
    return printed.getvalue()


def test_help_names_our_arguments_beside_sglangs():
    text = in_fresh_process(help_text)
    assert "--codec-slots" in text
    assert "--mem-fraction-static" in text
