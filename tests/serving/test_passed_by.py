"""A real server on an SGLang that goes round one of our hooks: it does not start, and says which hook it is."""

from pathlib import Path

import pytest

from sglang_moss.clients.local_server import LocalServer, ServerFailed

pytestmark = [pytest.mark.server, pytest.mark.slow]

PASSED_BY = {  # one whose loss gives an answer without audio, and one whose loss gives no answer at all
    "HTTP": ("sglang.srt.managers.io_struct", "GenerateReqInput.contains_mm_input"),
    "scheduler": ("sglang.srt.managers.scheduler", "Scheduler.process_input_requests"),
}


@pytest.mark.parametrize("process", PASSED_BY)
def test_a_server_does_not_start_and_names_the_hook(fused_path: Path, tmp_path: Path, process: str):
    module, name = PASSED_BY[process]
    altered = Path(__file__).parents[1] / "helpers" / "passed_by"
    env = {"PASSED_BY": f"{module}:{name}", "PYTHONPATH": str(altered)}
    server = LocalServer(fused_path, log=tmp_path / "log", env=env, start_timeout_s=600)
    with pytest.raises(ServerFailed), server:
        pass
    told = next(line for line in (tmp_path / "log").read_text().splitlines() if "SGLang has not called" in line)
    assert f"{module}.{name}" in told
