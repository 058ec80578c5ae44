"""Teacher-forced runs of the served model: SGLang's model runner in this process, no scheduler, no server.

    python -m sglang_moss.benchmarks.forced_logits FUSED ROWS.npz OUT.npz [--dtype bfloat16] [--quantization fp8]

ROWS.npz holds `input_ids` [S, 1 + n_vq]; OUT.npz gets `embeddings` and `hidden` [S, D], `text_logits` [S, V] and
`audio_logits` [n_vq, S, audio_vocab_size], all float32.
"""

import argparse
from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sglang_moss.multimodal_item import attach_progress, envelope
from sglang_moss.plugin import register
from sglang_moss.request.settings import RequestOptions
from sglang_moss.request.speech import SpeechRequest
from sglang_moss.server_args import MossServerArgs

from .reference.rows_engine import prompt_of_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_path")
    parser.add_argument("rows")
    parser.add_argument("out")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", help="SGLang's name for it")
    args = parser.parse_args()
    with np.load(args.rows) as arrays:
        rows = arrays["input_ids"].astype(np.int32)
    found: dict[str, Any] = ForcedModel(args.model_path, args.dtype, args.quantization).run(rows)
    np.savez(args.out, **found)


class ForcedModel:
    """The model, loaded by SGLang in this process; one to a process."""

    def __init__(self, model_path: str, dtype: str, quantization: str | None = None) -> None:
        register()
        from sglang.benchmark.one_batch import load_model
        from sglang.srt.runtime_context import SpawnRanks, publish
        from sglang.srt.server_args import PortArgs

        arguments: Any = MossServerArgs  # SGLang defines the fields of its base at run time
        server_args = arguments(
            model_path=model_path,
            delay_pattern=True,
            dtype=dtype,
            quantization=quantization,
            disable_cuda_graph=True,
            max_running_requests=4,
        )
        publish(server_args, role="scheduler", ranks=SpawnRanks(world_rank=0, gpu_id=0))
        bench_runner: Any
        bench_runner, _tokenizer = load_model(server_args, PortArgs.init_new(server_args), gpu_id=0, tp_rank=0)
        self._runner = bench_runner.torch_runner
        self._model = self._runner.model

    def run(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Run the rows [S, 1 + n_vq] as one prefill; what OUT.npz holds."""
        seen: dict[str, torch.Tensor] = {}

        def keep(_module: Any, inputs: tuple, output: torch.Tensor) -> None:
            seen["embeddings"], seen["hidden"] = inputs[3], output

        handle = self._model.model.register_forward_hook(keep)
        self._prefill(rows)
        handle.remove()
        text, audio = self._model.logits(seen["hidden"])
        return {
            "embeddings": seen["embeddings"].float().cpu().numpy(),
            "hidden": seen["hidden"].float().cpu().numpy(),
            "text_logits": text.cpu().numpy(),
            "audio_logits": audio.transpose(0, 1)[..., : self._model.n_codes - 1].cpu().numpy(),
        }

    def _prefill(self, rows: np.ndarray) -> None:
        """One request with these rows, through SGLang's own batch preparation, on empty pools."""
        from sglang.benchmark.one_batch import extend
        from sglang.srt.managers.schedule_batch import MultimodalInputs, Req
        from sglang.srt.sampling.sampling_params import SamplingParams

        tokens = self._model.tokens
        prompt = prompt_of_rows(rows, tokens)
        request = SpeechRequest(prompt, RequestOptions.parse({"temperature": 0.0}), reference_cached=False)
        output = envelope(request, tokens.pad_code)
        assert output.padded_input_ids is not None
        params = SamplingParams(temperature=0.0, max_new_tokens=1)
        params.normalize(SimpleNamespace(encode=len, eos_token_id=None))
        req = Req("0", "", array("q", output.padded_input_ids), params)
        req.multimodal_inputs = MultimodalInputs.from_processor_output(output)
        attach_progress(req.multimodal_inputs, req)
        req.full_untruncated_fill_ids = req.origin_input_ids
        req.extend_end = len(req.origin_input_ids)
        req.logprob_start_len = -1
        self._runner.req_to_token_pool.clear()
        self._runner.token_to_kv_pool_allocator.clear()
        extend([req], self._runner)


if __name__ == "__main__":
    main()
