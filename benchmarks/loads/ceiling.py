"""The engine's own speed, as `engine_ceiling` measured it, to hold a result against."""

from collections.abc import Iterable, Mapping
from typing import Any

BENCHMARK = "engine_ceiling"


def engine_ratios(line: Mapping[str, Any], ceiling: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """A closed-loop result over the plain engine's of the same workload, spread and concurrency.

    Of several such lines the last one counts.

    `engine_ratio` compares like with like: the same closed loop over HTTP, prompts included. `engine_decode_ratio`
    holds the same result against the plain engine's steady decode rate alone, which no server can reach.
    """
    same = [
        c
        for c in ceiling
        if c.get("benchmark") == BENCHMARK
        and c.get("workload") == line["workload"]
        and c.get("concurrency") == line["concurrency"] is not None
        and c.get("spread", 0.0) == line.get("spread", 0.0)
    ]
    whole = same[-1]["audio_s_per_s"] if same else None
    decode = same[-1].get("decode_audio_s_per_s") if same else None
    return {
        "engine_ratio": line["audio_s_per_s"] / whole if whole else None,
        "engine_decode_ratio": line["audio_s_per_s"] / decode if decode else None,
    }
