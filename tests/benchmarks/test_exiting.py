"""How a benchmark's command ends."""

import re

import pytest

from sglang_moss.benchmarks.runs.exiting import in_one_line
from sglang_moss.clients import ServerRefused


@in_one_line("the lines before are written")
def command(error: BaseException | None) -> int:
    if error is not None:
        raise error
    return 3


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 3, ""),
        (ServerRefused(429, "full"), 1, "error: .*full\n"),
        (FileNotFoundError(2, "none", "lines.jsonl"), 1, "error: .*lines.jsonl.*\n"),
        (ValueError("no load"), 1, "error: no load\n"),
        (KeyboardInterrupt(), 130, "interrupted: the lines before are written\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, status: int, said: str
):
    assert command(error) == status
    found = capsys.readouterr()
    assert found.out == ""
    assert bool(found.err) == bool(said)
    assert re.fullmatch(said, found.err)


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError):
        command(KeyError("a"))
