"""Compile what the language model's training will need, so that the second command finds it on the disk."""

import argparse
import time

import numpy as np
import torch

from sglang_moss.training.attention import choose_backend
from sglang_moss.training.config import ComputeConfig
from sglang_moss.training.layer_wrapping import wrap_layers
from sglang_moss.training.model import ModelShape, empty_model
from sglang_moss.training.pack import make_pack
from sglang_moss.training.rows import IGNORED

from .language_model import SHAPES, model_config
from .train_lm import working_attention

_ROWS = 32_768


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="a")
    parser.add_argument("--codebook-size", type=int, default=512)
    parser.add_argument("--n-vq", type=int, default=8)
    args = parser.parse_args()
    started = time.time()
    device = torch.device("cuda:0")
    shape = ModelShape.from_dict(model_config(args.shape, args.n_vq, args.codebook_size))
    model = empty_model(shape, device, torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    wrap_layers(model, ComputeConfig(compile=True, checkpointing="none"))
    model.attention = choose_backend(working_attention(), device, torch.bfloat16)
    model.lm_heads.chunk_rows = 8192
    rng = np.random.default_rng(0)
    for n_examples in (80, 83, 90):  # another number of segments is another shape
        examples = []
        for _ in range(n_examples):
            rows = rng.integers(0, 300, (380, 1 + args.n_vq)).astype(np.int32)
            labels = rows[1:].copy()
            labels[:200] = IGNORED
            examples.append((rows, labels))
        pack = make_pack(examples, np.full(1 + args.n_vq, 1e-4), 256, _ROWS).to(device)
        loss, _ = model(pack)
        loss.backward()
        print(f"warm: {n_examples} segments, loss {float(loss):.3f}, {time.time() - started:.0f} s", flush=True)
    model.eval()
    with torch.no_grad():
        print(f"warm: validation {float(model(pack)[0]):.3f}, {time.time() - started:.0f} s", flush=True)
    model.train()
    torch.cuda.synchronize()
    before = time.time()
    for _ in range(10):
        model(pack)[0].backward()
    torch.cuda.synchronize()
    print(
        f"warm: {(time.time() - before) * 100:.1f} ms a pass of {_ROWS} rows, memory "
        f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB",
        flush=True,
    )


if __name__ == "__main__":
    main()
