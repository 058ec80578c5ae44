"""A start told by what the server has printed: its parts, and when they are told."""

from itertools import accumulate, groupby
from pathlib import Path

import pytest

from sglang_moss.clients.start_log import IMPORTING, StartProgress, StartReport, part_of_start

# As SGLang prints them on a GPU; what is not needed is cut.
LINES = """\
[2026-11-26 02:00:37] Attention backend not specified. Use fa3 backend by default.
[2026-11-26 02:00:37] server_args={'model_path': 'fused', 'warmups': 'sglang_moss', 'disable_cuda_graph': False}
[2026-11-26 02:01:14] Init parallel begin.
[2026-11-26 02:01:15] Load weight begin. avail mem=78.50 GB
Multi-thread loading shards:   0% Completed | 0/6 [00:00<?, ?it/s]
[2026-11-26 02:01:21] Load weight end. elapsed=5.82 s, type=MossTTSDdelayWithCodec, avail mem=48.72 GB
[2026-11-26 02:01:21] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 261371
[2026-11-26 02:01:21] Disable prefill CUDA graph because cuda_graph_config resolved prefill.backend='disabled'.
[2026-11-26 02:01:21] Capture target decode CUDA graph begin. backend=full, avail mem=12.77 GB
[2026-11-26 02:01:26] Capture target decode CUDA graph end. elapsed=4.70 s, mem usage=0.22 GB
[2026-11-26 02:01:29] Running warmup sglang_moss
[2026-11-26 02:01:30] Prefill batch, #new-seq: 1, #new-token: 83
[2026-11-26 02:01:30] Warmup ended
[2026-11-26 02:01:30] The server is fired up and ready to roll!
""".splitlines(keepends=True)


def parts(lines: list[str]) -> list[str]:
    """Which parts a log that grows line by line comes to, each once."""
    return [part for part, _ in groupby(map(part_of_start, accumulate(lines, initial="")))]


def test_parts_are_told_in_the_order_of_a_start():
    assert parts(LINES) == [
        "importing SGLang",
        "importing SGLang again, for the process of the model",
        "loading the weights",
        "allocating memory",
        "capturing CUDA graphs",
        "speaking a warm-up request",
        "opening the port",
        "listening",
    ]


def test_a_log_that_nobody_knows_is_a_server_that_imports():
    assert parts(["Traceback (most recent call last):\n", "  something else\n"]) == [IMPORTING]


@pytest.mark.parametrize("looks_s", [[0.0, 3.0, 7.9], [0.0]])
def test_a_part_that_lasts_is_told_once_within_eight_seconds(tmp_path: Path, looks_s: list[float]):
    assert told(tmp_path, looks_s) == [StartProgress(IMPORTING, 0.0)]


def test_a_part_that_lasts_is_told_again_at_least_every_ten_seconds(tmp_path: Path):
    seconds = [progress.seconds for progress in told(tmp_path, [0.2 * look for look in range(600)])]
    assert max(after - before for before, after in zip(seconds, [*seconds[1:], 120.0], strict=True)) < 10
    assert len(seconds) < 20


def told(folder: Path, looks_s: list[float]) -> list[StartProgress]:
    """What is told of a server that prints nothing, by the times at which somebody looks."""
    log = folder / "server.log"
    log.touch()
    found: list[StartProgress] = []
    report = StartReport(log, found.append)
    for seconds in looks_s:
        report.look(seconds)
    return found


def test_another_part_is_told_at_once(tmp_path: Path):
    log = tmp_path / "server.log"
    found: list[StartProgress] = []
    report = StartReport(log, found.append)
    for second, n_lines in enumerate([0, 2, 3, 4, 4]):
        log.write_text("".join(LINES[:n_lines]))
        report.look(second / 10)
    assert [str(progress) for progress in found] == [
        "  0 s  importing SGLang",
        "  0 s  importing SGLang again, for the process of the model",
        "  0 s  loading the weights",
    ]


def test_half_a_character_at_the_end_of_a_log_is_no_error(tmp_path: Path):
    log = tmp_path / "server.log"
    log.write_bytes("Load weight begin. 5%|▌".encode()[:-1])
    found: list[StartProgress] = []
    StartReport(log, found.append).look(12.3)
    assert [str(progress) for progress in found] == [" 12 s  loading the weights"]
