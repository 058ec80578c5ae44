"""A running server, ill-treated: what was asked, what went wrong, and what was lost.

    python -m sglang_moss.benchmarks.faults --url http://127.0.0.1:30000 --seed 1 --out faults.jsonl

A line for each kind of ill-treatment: `bad_audio` (hostile files through every door), `bad_fields` (bodies from the
OpenAPI schema and beside it), `closed_doors` (every other route of the application, and fields that ended servers),
`storm` (many clients, of which a third leaves at any moment), `tenants` (voices that must not cross). For a server
that is well, `wrong`, `lost`, `failed`, `crossed` and `poisoned` are 0, and so is the exit status. Needs this
package's `dev` extra, and a server with `--enable-metrics --api-key KEY`, as services run it; stores two voices and
removes them.
"""

import argparse
import asyncio
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from .hostile.asking import ask, client, generate, speech
from .hostile.audio import DOUBTFUL, REFUSED
from .hostile.bad_fields import send_bad_fields
from .hostile.closed_doors import knock_at_all
from .hostile.storm import storm
from .hostile.tenants import inline_voices, stored_voices
from .loads.synthetic_voice import synthetic_clip
from .runs.host_memory import resident_mib, server_of
from .runs.record import record

_VOICES = "/v1/audio/voices"
_SOUND = "hostile"  # name of a voice that a doubtful file becomes
_MUST_BE_ZERO = ("wrong", "lost", "failed", "crossed", "poisoned", "multiplied")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:30000", help="of the server (%(default)s)")
    parser.add_argument("--api-key", help="of the server, if it has one")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    parser.add_argument("--clients", type=int, default=200, help="of the storm (%(default)s)")
    parser.add_argument("--bodies", type=int, default=200, help="made from the schema of each endpoint (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("faults.jsonl"))
    args = parser.parse_args()
    try:
        lines = record(args.out, ill_treat(args))
    except httpx.TransportError as error:
        print(f"error: {args.url}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    return int(any(line.get(name) for line in lines for name in _MUST_BE_ZERO))


def ill_treat(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line a kind, with the seconds that it took and by how much the server's processes grew.

    Raises:
        httpx.TransportError: the server does not answer.
    """
    httpx.get(f"{args.url}/health", timeout=60, trust_env=False)
    server = server_of(args.url)
    control = generate("[S1] Before and after.", [synthetic_clip(0.8, args.seed)], 20, args.seed)

    async def heard_alone() -> Any:
        async with client(args.url, args.api_key) as asking:
            return await ask(asking, control)

    before = asyncio.run(heard_alone())
    kinds = {
        "bad_audio": lambda: asyncio.run(send_bad_audio(args.url, args.api_key)),
        "bad_fields": lambda: send_bad_fields(args.url, args.api_key, args.seed, args.bodies),
        "closed_doors": lambda: knock_at_all(args.url, args.api_key),
        "storm": lambda: dataclasses.asdict(asyncio.run(storm(args.url, args.api_key, args.seed, args.clients))),
        "tenants": lambda: asyncio.run(_tenants(args)),
    }
    for kind, ill_treatment in kinds.items():
        began, memory = time.perf_counter(), resident_mib(server) or {}
        counts = ill_treatment()
        is_well = httpx.get(f"{args.url}/health", timeout=60, trust_env=False).status_code == httpx.codes.OK
        counts["wrong"] = counts.get("wrong", 0) + (not is_well) + (not asyncio.run(heard_alone()).equals(before))
        seconds = round(time.perf_counter() - began, 1)
        grown = {process: round(mib - memory[process]) for process, mib in (resident_mib(server) or {}).items()}
        yield {"kind": kind, "seed": args.seed, **counts, "seconds": seconds, "grown_mib": grown}


async def send_bad_audio(url: str, api_key: str | None) -> dict[str, Any]:
    """Every hostile file through `/generate`, `/v1/audio/speech` and as a voice.

    Returns:
        Counts: `requests`; `bad_inputs` that were refused; `wrong`: heard though it is no sound, or neither heard nor
        refused; `failed`: with a status of 500 or above.
    """
    statuses: list[tuple[bool, int]] = []
    async with client(url, api_key) as server:
        for name, make in {**REFUSED, **DOUBTFUL}.items():
            data = make()
            asked = [generate("[S1] Hi.", [data], 2, 0), speech("[S1] Hi.", [data], 2, 0)]
            # One after the other: where it is the client that runs out of memory, nothing is learnt.
            answers = [await server.post(question.path, json=question.body) for question in asked]
            answers.append(await server.post(_VOICES, data={"name": _SOUND}, files={"audio": ("a", data)}))
            await server.delete(f"{_VOICES}/{_SOUND}")
            statuses += [(name in REFUSED, answer.status_code) for answer in answers]
    refused = Counter(400 <= status < 500 for _, status in statuses)
    return {
        "requests": len(statuses),
        "bad_inputs": refused[True],
        "wrong": sum(must_be and not 400 <= status < 500 for must_be, status in statuses),
        "failed": sum(status >= httpx.codes.INTERNAL_SERVER_ERROR for _, status in statuses),
    }


async def _tenants(args: argparse.Namespace) -> dict[str, Any]:
    inline = await inline_voices(args.url, args.api_key, args.seed, n_tenants=8, n_rounds=6)
    stored = await stored_voices(args.url, args.api_key, args.seed, n_rounds=6)
    return {"requests": inline.requests + stored.requests, "crossed": inline.wrong + stored.wrong}


if __name__ == "__main__":
    sys.exit(main())
