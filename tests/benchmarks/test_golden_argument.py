"""Where benchmarks look for golden data."""

import argparse
from pathlib import Path

import pytest

from sglang_moss.benchmarks.runs.golden import add_golden_argument


def parsed(*arguments: str) -> Path:
    parser = argparse.ArgumentParser()
    add_golden_argument(parser)
    return parser.parse_args(arguments).golden


def test_it_is_that_of_the_checkout_or_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tests/golden").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parsed() == Path("tests/golden")
    assert parsed("--golden", str(tmp_path)) == tmp_path


@pytest.mark.parametrize("arguments", [(), ("--golden", "elsewhere")])
def test_none_is_said_before_any_work(arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert "start this in a checkout, or say where its data is" in capsys.readouterr().err
