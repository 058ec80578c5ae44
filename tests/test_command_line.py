"""A command line is read as SGLang's own parser reads it, as far as it is checked early."""

from pathlib import Path

import pytest
from fresh_process import in_fresh_process

from sglang_moss.command_line import FLAG, NoConfigFile, arguments_of, make_parser, read, without_backend


@pytest.mark.parametrize(
    ("words", "model", "port"),
    [
        ([], "", "30000"),
        (["a"], "a", "30000"),
        (["a", "--port", "1"], "a", "1"),
        (["--model-path=a", "--port=1"], "a", "1"),
        (["--model", "a", "--po", "1"], "a", "1"),
        (["--model-p", "a"], "a", "30000"),
        (["--model-type", "moss-ttsd", "a"], "a", "30000"),
        (["--model-type=moss-ttsd", "--port", "1", "--model-path", "a"], "a", "1"),
        (["a", "--model-path", "b"], "b", "30000"),
        (["a", "--tp-size", "2", "--voice-alias", "x=y"], "a", "30000"),
    ],
)
def test_model_and_port_in_every_form(words: list[str], model: str, port: str):
    said = read(["serve", *words])
    assert said is not None
    assert (said.model_path, said.port) == (model, port)


@pytest.mark.parametrize("words", ["", "generate a", "serve -h", "serve a --help", "serve --port", "serve --d cpu"])
def test_what_is_left_to_sglang(words: str):
    assert read(words.split()) is None


def test_the_backends_name_is_no_model():
    assert without_backend(["--model-type", "x", "a", "--model-type=y", "--port", "1"]) == ["a", "--port", "1"]
    assert without_backend(["a", "--model-type"]) == ["a"]


def test_the_command_line_goes_before_a_file_of_arguments(tmp_path: Path):
    file = tmp_path / "server.yml"
    file.write_text("port: 1\nhost: ::1\ndelay-pattern: true\nenable-metrics: false\nvoice-alias: [a=b]\n")
    assert arguments_of(str(file)) == ["--delay-pattern", "--port=1", "--host=::1"]
    said = read(["serve", "a", "--config", str(file), "--port", "2"])
    assert said is not None
    assert (said.port, said.host, said.delay_pattern) == ("2", "::1", True)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.yaml", None, "cannot be read"),
        ("a.yaml", "port: [", "cannot be read"),
        ("a.yaml", "1: x", "a line of it is an argument"),
        ("a.yaml", "port", "is an argument"),
        ("a.toml", "", r"end in \.yaml or \.yml"),
    ],
)
def test_a_file_of_arguments_that_is_none(tmp_path: Path, name: str, text: str | None, problem: str):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(NoConfigFile, match=problem):
        arguments_of(str(tmp_path / name))
    (tmp_path / "empty.yaml").touch()
    assert arguments_of(str(tmp_path / "empty.yaml")) == []


def option_strings() -> set[str]:
    import argparse

    from sglang_moss.server_args import MossServerArgs

    parser = argparse.ArgumentParser()
    MossServerArgs.add_cli_args(parser)
    return set(parser._option_string_actions)


@pytest.mark.wide
def test_no_argument_of_sglangs_is_taken_for_an_abbreviation_of_one_that_is_read():
    known = set(make_parser()._option_string_actions)
    assert FLAG in known
    theirs = in_fresh_process(option_strings)
    assert known <= theirs
    assert [name for name in theirs - known if any(mine.startswith(name) for mine in known)] == []
