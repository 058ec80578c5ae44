"""Parity on the device at hand: golden cases in bf16 or fp16 with captured graphs, and equality between paths.

    python -m sglang_moss.benchmarks.parity FUSED --golden tests/golden --dtype bfloat16 --out parity.jsonl
    python -m sglang_moss.benchmarks.parity FUSED --golden tests/golden --dtype bfloat16 --deterministic

SGLang's CUDA kernels take no float32, so logits and waveforms differ from the float32 reference by rounding, and greedy
runs part from it where two candidates nearly tie. The lines say by how much and how often. Equality between paths needs
SGLang's deterministic kernels: with the others a batch rounds differently from a request alone.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sglang_moss.backbone.layers import FUSED, STOCK

from .reference.golden_cases import GoldenCases
from .reference.rows_engine import RowsAnswer, RowsEngine
from .reference.waveforms import pcm_of_wav
from .runs.exiting import exit_on_sigterm
from .runs.golden import add_golden_argument
from .runs.record import record

_RETRACT = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "3"}
_N_SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_path")
    add_golden_argument(parser)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--codec-dtype", default="auto", help="of the codec's decoder (%(default)s)")
    parser.add_argument("--tp-size", type=int, default=1, help="ranks of the engine (%(default)s)")
    parser.add_argument("--deterministic", action="store_true", help="SGLang's batch-invariant kernels; equality only")
    parser.add_argument("--decoding-layers", choices=[STOCK, FUSED], default=STOCK, help="(%(default)s)")
    prefill = ["breakable", "full", "disabled"]
    parser.add_argument("--cuda-graph-backend-prefill", choices=prefill, help="(the server's own choice)")
    parser.add_argument("--out", type=Path, default=Path("parity.jsonl"))
    args = parser.parse_args()
    if args.deterministic and args.decoding_layers != STOCK:
        parser.error(f"--deterministic goes with --decoding-layers {STOCK}")
    cases = GoldenCases(args.golden)
    engine_args: dict[str, Any] = {"dtype": args.dtype, "tp_size": args.tp_size}
    if args.cuda_graph_backend_prefill is not None:
        engine_args["cuda_graph_backend_prefill"] = args.cuda_graph_backend_prefill
    if args.deterministic:
        engine_args |= {"enable_deterministic_inference": True}
        lines = equalities(args.model_path, cases, **engine_args)
    else:
        engine_args |= {"codec_dtype": args.codec_dtype, "decoding_layers": args.decoding_layers}
        of_one_rank = forced(args.model_path, args.golden, args.dtype) if args.tp_size == 1 else ()
        lines = itertools.chain(of_one_rank, parity(args.model_path, cases, **engine_args))
    told = {"dtype": args.dtype, "tp_size": args.tp_size, "decoding_layers": args.decoding_layers}
    told |= {"cuda_graph_backend_prefill": args.cuda_graph_backend_prefill}
    record(args.out, ({**told, **line} for line in lines))


def parity(model_path: str, cases: GoldenCases, **engine_args: Any) -> Iterator[dict[str, Any]]:
    """One line a check, with captured graphs and the overlap schedule."""
    requests = sampled(cases)
    with RowsEngine(model_path, **engine_args) as engine:
        yield from greedy(engine, cases)
        yield from served(engine, cases)
        alone = [engine.ask([request])[0] for request in requests]
        yield equality("alone again = alone", alone, [engine.ask([request])[0] for request in requests])


def equalities(model_path: str, cases: GoldenCases, **engine_args: Any) -> Iterator[dict[str, Any]]:
    """The same sampled requests by every path through the engine."""
    requests = sampled(cases)
    with RowsEngine(model_path, **engine_args) as engine:
        alone = [engine.ask([request])[0] for request in requests]
        engine.flush_cache()
        yield equality("batched = alone", alone, engine.ask(requests))
        yield equality("cached = alone", alone, engine.ask(requests))
        yield equality("alone again = alone", alone, [engine.ask([request])[0] for request in requests])
    with environment(_RETRACT), RowsEngine(model_path, **engine_args) as engine:
        yield equality("retracted = alone", alone, engine.ask(requests))
    engine_args.pop("cuda_graph_backend_prefill", None)
    with RowsEngine(model_path, disable_cuda_graph=True, **engine_args) as engine:
        yield equality("no graphs = alone", alone, engine.ask(requests))


def forced(model_path: str, golden: Path, dtype: str) -> Iterator[dict[str, Any]]:
    rows = golden / "cases" / "lm" / "teacher_forced.npz"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        module = "sglang_moss.benchmarks.forced_logits"
        subprocess.run([sys.executable, "-m", module, model_path, rows, out, "--dtype", dtype], check=True)
        with np.load(rows) as expected, np.load(out) as actual:
            for name in ("text_logits", "audio_logits"):
                error = np.abs(actual[name] - expected[name])
                yield {
                    "check": f"teacher-forced {name}",
                    "max_error": float(error.max()),
                    "rms_error": float(np.sqrt(np.mean(error**2))),
                    "std": float(expected[name].std()),
                    "argmax_equal": float((actual[name].argmax(-1) == expected[name].argmax(-1)).mean()),
                }


def greedy(engine: RowsEngine, cases: GoldenCases) -> Iterator[dict[str, Any]]:
    """Greedy generations against the reference's: equal to the end, or up to which row."""
    golden = cases.greedy()
    answers = engine.generate([case.prompt for case in golden], [case.settings for case in golden])
    n_equal, parted = 0, []
    for case, answer in zip(golden, answers, strict=True):
        expected = case.frames.tolist()
        if answer.codes.tolist() == expected:
            n_equal += 1
        else:
            n_shared = first_difference(answer.codes.tolist(), expected)
            parted.append({"key": case.key, "equal_frames": n_shared, "of": len(expected), "margin": case.margin})
    yield {"check": "greedy = reference", "equal": n_equal, "of": len(golden), "parted": parted}


def served(engine: RowsEngine, cases: GoldenCases) -> Iterator[dict[str, Any]]:
    """`/generate` bodies end to end: reference codes, codes and waveform."""
    arrays = cases.arrays("e2e/e2e")
    n_equal, parted, worst = 0, [], 0.0
    keys = cases.comparable_keys()
    for key, answer in zip(keys, engine.ask([cases.served_request(key) for key in keys]), strict=True):
        expected = arrays[f"{key}.generated_codes"].tolist()
        if answer.error is None and answer.codes.tolist() == expected:
            n_equal += 1
            if "over_10s" not in key:  # there the reference's own chunked decoding differs from its one-shot decoding
                error = np.abs(pcm_of_wav(answer.wav_base64) - arrays[f"{key}.waveform"].reshape(-1)).max()
                worst = max(worst, float(error))
        else:
            n_shared = first_difference(answer.codes.tolist(), expected)
            parted.append({"key": key, "equal_frames": n_shared, "of": len(expected), "error": answer.error})
    yield {
        "check": "end to end = reference",
        "equal": n_equal,
        "of": len(keys),
        "wav_max_error": worst,
        "parted": parted,
    }


def sampled(cases: GoldenCases) -> list[dict[str, Any]]:
    """Sampled requests: every golden body under several seeds, of fixed length."""
    requests = []
    for i, key in enumerate(cases.served_keys()):
        for seed in range(_N_SEEDS):
            settings = {"max_new_tokens": 40, "ignore_eos": True, "sampling_seed": 100 * i + seed}
            requests.append({**cases.served_request(key), "sampling_params": settings})
    return requests


def equality(check: str, expected: list[RowsAnswer], actual: list[RowsAnswer]) -> dict[str, Any]:
    pairs = [(e.codes.tolist(), a.codes.tolist()) for e, a in zip(expected, actual, strict=True)]
    return {
        "check": check,
        "equal": sum(e == a for e, a in pairs),
        "of": len(pairs),
        "equal_frames_of_parted": [first_difference(a, e) for e, a in pairs if e != a],
        "failed": sum(a.error is not None for a in actual),
        "cached_rows": sum(a.meta.get("cached_tokens", 0) for a in actual),
        "retractions": sum(a.meta.get("num_retractions", 0) for a in actual),
    }


def first_difference(actual: list, expected: list) -> int:
    shared = min(len(actual), len(expected))
    return next((t for t in range(shared) if actual[t] != expected[t]), shared)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the engines started inside."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


if __name__ == "__main__":
    exit_on_sigterm()
    main()
