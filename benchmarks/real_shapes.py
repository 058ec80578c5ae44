"""The real model's shapes with random weights: starts, answers, stops; how long it takes and what it holds.

    python -m sglang_moss.benchmarks.real_shapes --golden tests/golden --out real_shapes.jsonl

8 B language model (Qwen3-8B shape), n_vq 16, codec of 1.77 G parameters. Weights are SGLang's dummy ones, so the sound
is noise: what is measured is the machinery. Lengths are forced with `ignore_eos`.

Source of the shapes: MOSS-TTSD v1.0 and MOSS-Audio-Tokenizer configurations.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..clients.local_server import LocalServer
from .golden_cases import GoldenCases
from .record import record
from .waveforms import pcm_of_wav

_LANGUAGE = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 155_648,
    "max_window_layers": 36,
    "layer_types": ["full_attention"] * 36,
}
_FRAMES = 125
# By module, so that no script needs to be installed.
_COMMAND = (sys.executable, "-c", "from sglang.cli.main import main; main()", "serve")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=Path("tests/golden"))
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 16, 32])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("real_shapes.jsonl"))
    args = parser.parse_args()
    cases = GoldenCases(args.golden)
    with tempfile.TemporaryDirectory() as folder:
        model = write_checkpoint(Path(folder) / "model", args.golden)
        record(args.out, measure(model, cases, args.concurrency, args.dtype, args.out.with_suffix(".log")))


def measure(model: Path, cases: GoldenCases, concurrency: list[int], dtype: str, log: Path) -> list[dict[str, Any]]:
    import httpx

    began = time.perf_counter()
    flags = ["--load-format", "dummy", "--dtype", dtype]
    with LocalServer(model, extra_args=flags, start_timeout_s=500, log=log, command=_COMMAND) as server:
        lines: list[dict[str, Any]] = [
            {"check": "ready", "seconds": time.perf_counter() - began, "gpu_memory": gpu_memory()}
        ]
        body = cases.served_request("two_references.length")

        def ask(seed: int) -> float:
            settings = {"max_new_tokens": _FRAMES, "ignore_eos": True, "sampling_seed": seed}
            sent = time.perf_counter()
            answer = httpx.post(f"{server.url}/generate", json={**body, "sampling_params": settings}, timeout=500)
            answer.raise_for_status()
            n_samples = len(pcm_of_wav(answer.json()["text"]))
            assert n_samples == _FRAMES * 1920, n_samples
            return time.perf_counter() - sent

        ask(0)
        for n in concurrency:
            with ThreadPoolExecutor(n) as pool:
                began = time.perf_counter()
                latencies = sorted(pool.map(ask, range(n)))
                wall_s = time.perf_counter() - began
            lines.append(
                {
                    "check": "answers",
                    "concurrency": n,
                    "frames": _FRAMES,
                    "wall_s": wall_s,
                    "audio_s_per_s": n * _FRAMES * 0.08 / wall_s,
                    "latency_s_p50": latencies[n // 2],
                    "gpu_memory": gpu_memory(),
                }
            )
        began = time.perf_counter()
    lines.append({"check": "stopped", "seconds": time.perf_counter() - began, "gpu_memory": gpu_memory()})
    return lines


def write_checkpoint(path: Path, golden: Path) -> Path:
    """A fused checkpoint's configuration at the real size, with the golden tokenizer and no weights."""
    shutil.copytree(golden / "fused", path)
    (path / "model.safetensors.index.json").unlink(missing_ok=True)
    config = json.loads((path / "config.json").read_text())
    config |= {"hidden_size": 4096, "vocab_size": 155_648, "audio_vocab_size": 1024, "audio_pad_code": 1024, "n_vq": 16}
    config["language_config"] |= _LANGUAGE
    config["codec_config"] |= codec_shape()
    for part in (config, config["language_config"]):
        part["dtype"] = "bfloat16"
    (path / "config.json").write_text(json.dumps(config))
    return path


def codec_shape() -> dict[str, Any]:
    def stage(n_in: int, n_out: int, large: bool = False) -> dict[str, Any]:
        d_model, n_heads, n_layers = (1280, 20, 32) if large else (768, 12, 12)
        return {
            "module_type": "Transformer",
            "input_dimension": n_in,
            "output_dimension": n_out,
            "d_model": d_model,
            "num_heads": n_heads,
            "num_layers": n_layers,
            "dim_feedforward": 4 * d_model,
            "causal": True,
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "max_period": 10000,
            "gating": "none",
            "layer_scale": 0.01,
            "conv_layout": True,
        }

    def patch(size: int) -> dict[str, Any]:
        return {"module_type": "PatchedPretransform", "patch_size": size}

    encoder = [patch(240), stage(240, 384), patch(2), stage(768, 384), patch(2), stage(768, 640), patch(2)]
    decoder = [stage(768, 1280, large=True), patch(2), stage(640, 768), patch(2), stage(384, 768), patch(2)]
    quantizer = {"input_dim": 768, "rvq_dim": 512, "output_dim": 768, "num_quantizers": 32}
    return {
        "encoder_kwargs": [*encoder, stage(1280, 768, large=True)],
        "decoder_kwargs": [*decoder, stage(384, 240), patch(240)],
        "quantizer_kwargs": {**quantizer, "codebook_size": 1024, "codebook_dim": 8, "quantizer_type": "rlfq"},
        "code_dim": 768,
    }


def gpu_memory() -> str:
    """Used memory of the first GPU, as nvidia-smi says."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]


if __name__ == "__main__":
    main()
