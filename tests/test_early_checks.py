"""What of a command line is refused before a server starts, and what is left to SGLang's own parser."""

import json
import re
import socket
from pathlib import Path

import pytest

from sglang_moss.checkpoint import ARCHITECTURE
from sglang_moss.clients.local_server import free_port
from sglang_moss.early_checks import check, check_address, is_ours, voices_folder


@pytest.fixture
def fused(tmp_path: Path) -> str:
    folder = tmp_path / "fused"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [ARCHITECTURE]}))
    (folder / "model.safetensors").touch()
    return str(folder)


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def serve(model: str, *argv: str, voices: Path) -> list[str]:
    return ["serve", "--model-path", model, "--port", str(free_port()), "--voices-dir", str(voices), *argv]


def test_a_command_line_is_ours_by_the_flag_or_by_the_checkpoint(fused: str):
    assert is_ours(["serve", "--model-path", fused])
    assert is_ours(["serve", f"--model={fused}"])
    assert is_ours(["serve", "--model-path", "/no/such", "--delay-pattern"])
    assert not is_ours(["serve", "--model-path", "/no/such"])
    assert not is_ours(["generate", "--model-path", fused])
    assert not is_ours([])
    assert not is_ours(["serve", "--delay-pattern", "--help"])
    assert not is_ours(["serve", "--delay-pattern", "--port"])  # SGLang's parser says what is wrong


def test_a_command_line_that_can_work_passes(fused: str, tmp_path: Path):
    check(serve(fused, "--delay-pattern", "--no-such-flag", "--tp-size", "1", voices=tmp_path / "new" / "voices"))
    assert list((tmp_path / "new" / "voices").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", r"there is no .*nowhere"),
        ("file", r"file is a file"),
        ("empty", r"empty has no config\.json"),
        ("other", r"other is another checkpoint"),
    ],
)
def test_a_model_that_is_no_fused_checkpoint_is_named_with_what_is_there(name: str, sentence: str, tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    with pytest.raises(SystemExit, match=rf"{sentence}.*python -m sglang_moss\.fuse"):
        check(serve(str(tmp_path / name), "--delay-pattern", voices=tmp_path))


def index(*shards: str) -> str:
    return json.dumps({"weight_map": {f"weight{i}": shard for i, shard in enumerate(shards)}})


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "model.safetensors"),
        (
            {"model.safetensors.index.json": index("a.safetensors", "b.safetensors"), "a.safetensors": ""},
            "b.safetensors",
        ),
        ({"model.safetensors.index.json": "{", "a.safetensors": ""}, "model.safetensors.index.json"),
        ({"model.safetensors.index.json": '{"weight_map": ', "a.safetensors": ""}, "model.safetensors.index.json"),
    ],
)
def test_a_checkpoint_whose_copying_broke_off_is_named(fused: str, tmp_path: Path, files: dict[str, str], named: str):
    (Path(fused) / "model.safetensors").unlink()
    for name, text in files.items():
        (Path(fused) / name).write_text(text)
    with pytest.raises(SystemExit, match=rf"{fused} is not whole: it has no {named};"):
        check(serve(fused, voices=tmp_path))
    check(serve(fused, "--load-format", "dummy", voices=tmp_path))


def test_a_checkpoint_of_shards_passes(fused: str, tmp_path: Path):
    (Path(fused) / "model.safetensors.index.json").write_text(index("model.safetensors"))
    check(serve(fused, voices=tmp_path))


def test_a_device_that_is_none_is_named(fused: str, tmp_path: Path):
    with pytest.raises(SystemExit, match="--device: expected cpu or cuda, got 'cuda:1'"):
        check(serve(fused, "--device", "cuda:1", voices=tmp_path))
    check(serve(fused, "--device", "cpu", voices=tmp_path))


def test_a_port_in_use_is_named(fused: str, tmp_path: Path, taken_port: int):
    with pytest.raises(SystemExit, match=rf"port {taken_port} of 127\.0\.0\.1 .*in use.*--port"):
        check(serve(fused, "--port", str(taken_port), voices=tmp_path))
    check(serve(fused, "--port", str(taken_port), "--node-rank", "1", voices=tmp_path))  # it does not listen
    with pytest.raises(SystemExit, match=rf"port {taken_port} of "):
        check(serve(fused, "--por", str(taken_port), voices=tmp_path))  # SGLang's parser takes it, too


@pytest.mark.parametrize("port", ["many", "", "0", "-1", "65536", "99999"])
def test_a_port_that_is_none_is_refused(fused: str, tmp_path: Path, port: str):
    with pytest.raises(SystemExit, match=r"--port is a number from 1 to 65535, got"):
        check(serve(fused, f"--port={port}", voices=tmp_path))


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("no.such.host.invalid", "no.such.host.invalid"),
        ("203.0.113.1", "203.0.113.1"),
        ("a..b", "a..b"),
        ("a" * 64, "a" * 64),
        ("", "an empty --host"),
    ],
)
def test_an_address_that_is_not_this_machines_is_named(host: str, said: str):
    port = free_port()
    with pytest.raises(SystemExit, match=rf"port {port} of {re.escape(said)} \("):
        check_address(host, port)


def test_a_port_can_be_listened_on_right_after_the_check():
    port = free_port()
    check_address("127.0.0.1", port)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()


def test_a_folder_that_cannot_keep_voices_is_named(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below", Path("/proc/voices")):
        with pytest.raises(SystemExit, match=f"no voices can be kept in {folder} .*--voices-dir"):
            voices_folder(str(folder))


def test_a_file_of_arguments_is_read_too(fused: str, tmp_path: Path, taken_port: int):
    file = tmp_path / "server.yaml"
    file.write_text(f"model-path: {fused}\nport: {taken_port}\nvoices-dir: /proc/voices\n")
    assert is_ours(["serve", "--config", str(file)])
    for named in (["--config", str(file)], [f"--config={file}"]):
        with pytest.raises(SystemExit, match=rf"port {taken_port} of "):
            check(["serve", *named])
        with pytest.raises(SystemExit, match="no voices can be kept in /proc/voices"):
            check(["serve", *named, "--port", str(free_port())])  # the command line goes before the file


def test_a_file_of_arguments_that_cannot_be_read_is_named(fused: str, tmp_path: Path):
    file = tmp_path / "none.yaml"
    argv = ["serve", fused, "--delay-pattern", "--config", str(file)]
    assert is_ours(argv)
    with pytest.raises(SystemExit, match=rf"--config {file} cannot be read"):
        check(argv)
    assert not is_ours(["serve", "some/model", "--config", str(file)])


def test_the_model_may_come_first_and_has_to_be_named(fused: str, tmp_path: Path):
    assert is_ours(["serve", fused])
    assert not is_ours(["serve", "/no/such"])
    with pytest.raises(SystemExit, match="there is no /no/such"):
        check(["serve", "/no/such", "--delay-pattern"])
    with pytest.raises(SystemExit, match="there is no /no/such"):
        check(["serve", "--model-type", "moss-ttsd", "/no/such", "--delay-pattern"])
    for words in ([], [fused]):
        with pytest.raises(SystemExit, match=r"which model.*before other arguments"):
            check(["serve", "--delay-pattern", "--voices-dir", str(tmp_path), *words])
