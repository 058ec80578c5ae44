"""Speech to codes, on every GPU: `python -m small_voice.encode SPEECH CODEC OUTPUT --tokenizer MODEL`.

OUTPUT/codes.u16     [frames of all utterances, n_codebooks], one utterance behind the other
OUTPUT/index.npz     n_frames, voices, and how many tokens each text has, as it is written and as it is normalised
OUTPUT/texts.json    both forms of every text
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from sglang_moss.codec.kernels import plain_torch
from sglang_moss.request.text import normalize_text

from .codec_config import load_codec
from .letter_book import refuse
from .speech_store import Store
from .voices import FRAME

_BATCH_FRAMES = 6000
CODES = "codes.u16"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("speech", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--max-hours", type=float, default=float("inf"))
    args = parser.parse_args()
    refuse(args.codec)
    started = time.time()
    store = Store.open(args.speech, args.max_hours)
    args.output.mkdir(parents=True, exist_ok=True)
    n_codebooks = load_codec(args.codec).config.n_codebooks
    total = int(store.lengths.sum()) // FRAME
    np.memmap(args.output / CODES, np.uint16, "w+", shape=(total, n_codebooks)).flush()
    devices = [f"cuda:{k}" for k in range(torch.cuda.device_count())] * 2 or ["cpu"]
    context = torch.multiprocessing.get_context("spawn")
    children = [
        context.Process(target=_encode, args=(args.speech, store.counts, args.codec, args.output, total, k, devices))
        for k in range(len(devices))
    ]
    for child in children:
        child.start()
    texts = [(text, normalize_text(text)) for text in store.texts]
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    counts = [
        [len(one.ids) for one in tokenizer.encode_batch([pair[form] for pair in texts], add_special_tokens=False)]
        for form in (0, 1)
    ]
    (args.output / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    np.savez(
        args.output / "index.npz",
        n_frames=(store.lengths // FRAME).astype(np.int32),
        voices=store.voices,
        n_tokens=np.array(counts, np.int32).T,
    )
    for child in children:
        child.join()
        if child.exitcode:
            raise SystemExit(f"encoding failed with {child.exitcode}")
    hours = total * FRAME / 24_000 / 3600
    print(f"encoded {hours:.1f} h, {len(store)} utterances, in {time.time() - started:.0f} s", flush=True)


@torch.inference_mode()
@plain_torch()
def _encode(
    speech: Path, counts: list[int], path: Path, output: Path, total: int, rank: int, devices: list[str]
) -> None:
    if devices[rank] == "cpu":
        torch.set_num_threads(1)
    store, codec = Store.open(speech, counts=counts), load_codec(path, devices[rank])
    codes = np.memmap(output / CODES, np.uint16, "r+", shape=(total, codec.config.n_codebooks))
    frames = store.lengths // FRAME
    starts = np.concatenate([[0], np.cumsum(frames)])
    own = np.flatnonzero(store.files % len(devices) == rank)
    own = own[np.argsort(frames[own], kind="stable")]
    at, told = 0, time.time()
    while at < len(own):
        n = max(1, _BATCH_FRAMES // int(frames[own[min(at + 64, len(own) - 1)]]))
        batch = own[at : at + n]
        samples = np.zeros((len(batch), int(frames[batch].max()) * FRAME), np.int16)
        for row, i in zip(samples, batch, strict=True):
            row[: store.lengths[i]] = store[i]
        waves = torch.from_numpy(samples).to(devices[rank]).float() / 32768
        found = codec.quantizer.encode(codec.encoder_hidden(waves)).cpu().numpy().astype(np.uint16)
        for made, i in zip(found, batch, strict=True):
            codes[starts[i] : starts[i + 1]] = made[: frames[i]]
        at += n
        if time.time() - told > 10:
            told = time.time()
            print(f"encode {rank}: {at} of {len(own)}", flush=True)
    codes.flush()


if __name__ == "__main__":
    main()
