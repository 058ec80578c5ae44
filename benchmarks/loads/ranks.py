"""On how many cards a result was measured, and what one card does in the same case."""

from collections.abc import Iterable, Mapping
from typing import Any

import httpx

# What two lines have to agree in; precision counts, since a line without it is of another program.
_CASE = ("benchmark", "workload", "audio_seconds", "spread", "stream", "uncached_references", "concurrency", "rate")
_PRECISION = ("dtype", "quantization", "kv_cache_dtype")


def ranks_of(client: httpx.Client, n_servers: int = 1) -> dict[str, Any]:
    """What a server tells of its ranks and its precision; nothing where it tells nobody, or is none of SGLang's.

    Args:
        n_servers: behind the address, as whoever started them knows.
    """
    try:
        answer = client.get("/server_info")
        told = answer.json() if answer.is_success else {}
    except (httpx.RequestError, ValueError):
        told = {}
    names = ("tp_size", "dp_size", *_PRECISION, "check_ranks")
    return {name: told[name] for name in names if name in told} | {"n_servers": n_servers}


def n_cards(line: Mapping[str, Any]) -> int:
    """Cards behind a line; those that do not say have one."""
    return line.get("tp_size", 1) * line.get("dp_size", 1) * line.get("n_servers", 1)


def over_one_card(line: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """A result over the last one of its case and precision among `others` that had one card; None: there is none.

    Of copies side by side also `over_one_card_as_loaded`: over one card with as many requests as each of them had.
    """
    on_one_card = [other for other in others if n_cards(other) == 1 and "audio_s_per_s" in other]
    found = {"over_one_card": _over(line, line, on_one_card)}
    copies, n = line.get("dp_size", 1) * line.get("n_servers", 1), line.get("concurrency")
    if copies > 1 and isinstance(n, int) and n % copies == 0:
        found["over_one_card_as_loaded"] = _over(line, {**line, "concurrency": n // copies}, on_one_card)
    return found


def _over(line: Mapping[str, Any], case: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> float | None:
    same = [other for other in others if all(other.get(k) == case.get(k) for k in (*_CASE, *_PRECISION))]
    return line["audio_s_per_s"] / same[-1]["audio_s_per_s"] if same else None
