"""The parts of a release's run: each is a program of this folder, with arguments and a limit."""

from dataclasses import dataclass
from enum import Enum

LINES = "release.jsonl"


class Kind(Enum):
    """What a part may run beside."""

    COMPARES = "beside others of its kind, since nothing in it is timed"
    TIMES = "alone, and starts what it measures"
    TIMES_SERVER = "alone, on the server of the real shapes"


@dataclass(frozen=True)
class Part:
    """One program; `{tiny}`, `{model}`, `{golden}`, `{margins}`, `{lines}`, `{folder}` and `{url}` are filled in."""

    name: str
    kind: Kind
    limit_s: float
    module: str
    arguments: str


def _compares(name: str, module: str, arguments: str) -> Part:
    return Part(name, Kind.COMPARES, 380, module, "{tiny} --golden {golden} --out {lines} " + arguments)


def _load(name: str, limit_s: float, arguments: str) -> Part:
    common = "--url {url} --ceiling {lines} --out {lines} --time-limit 60 "
    return Part(name, Kind.TIMES_SERVER, limit_s, "serving", common + arguments)


def _on_server(name: str, limit_s: float, module: str, arguments: str) -> Part:
    return Part(name, Kind.TIMES_SERVER, limit_s, module, "--url {url} --out {lines} " + arguments)


_CEILING = "{model} --out {lines} --log {folder}/ceiling.server.log "

STANDARD = (
    _compares("near-ties-bf16", "near_ties", "--margins {margins} --dtype bfloat16"),
    _compares("near-ties-fp16", "near_ties", "--margins {margins} --dtype float16"),
    _compares("golden-bf16", "parity", "--dtype bfloat16 --codec-dtype float32"),
    _compares("golden-fp16", "parity", "--dtype float16 --codec-dtype float32"),
    _compares("equal-paths", "parity", "--dtype bfloat16 --deterministic"),
    _compares("page-sizes", "page_sizes", "--dtype float16 --page-sizes 1 16 64"),
    Part("ceiling", Kind.TIMES, 240, "engine_ceiling", _CEILING),
    _load("whole", 240, "--concurrency 1 16 64 128"),
    _load("stream", 120, "--concurrency 1 16 64 --stream"),
)
_OTHERS = (
    Part("ceiling-spread", Kind.TIMES, 240, "engine_ceiling", _CEILING + "--spread 0.5"),
    _load("spread", 150, "--concurrency 16 64 128 --spread 0.5"),
    _load("spread-stream", 150, "--concurrency 16 64 128 --spread 0.5 --stream"),
    _load("uncached", 40, "--concurrency 1 --stream --uncached-references"),
    _load("short", 60, "--workload short --concurrency 1 16 64 --stream"),
    _load("open", 120, "--rate 4 8 12 --duration 25 --stream"),
    _load("growth", 300, "--concurrency 64 64 64 64 --spread 0.5 --rounds 10"),
    _load("long", 150, "--workload long --concurrency 1 --requests 1"),
    _on_server("listeners", 430, "listeners", "--total-seconds 420"),
    _on_server("long-references", 120, "long_references", "--concurrency 16 --rounds 2 --audio-seconds 20"),
    _on_server("profile", 60, "step_profile", "--running 1 64"),
    _on_server("session", 400, "long_session", "--frames 45000"),
)
PARTS = {part.name: part for part in (*STANDARD, *_OTHERS)}
