"""Train one codec on one device for a given time:

    python -m small_voice.train_codec SPEECH OUTPUT --variant a --hours 16 --seconds 380 --device cuda:0

`OUTPUT/codec` is the published layout of the averaged weights, rounded to 16 bit, written every minute; beside it
`before`, as it was before the discriminators came, and `figures.json`.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sglang_moss.codec.codec import Codec

from .codec_config import codec_config, load_codec, new_codec, save_codec
from .codec_data import Clips, ClipSource
from .codec_forward import decode_frames, encode_frames, quantize
from .codec_losses import SpectralLoss
from .codec_steps import CodecSteps, Weights
from .speech_store import Store

VARIANTS = {
    "a": {"shape": "fine", "codebook_size": 512, "rate": 8e-4, "letters": 1.0},
    "b": {"shape": "coarse", "codebook_size": 512, "rate": 8e-4, "letters": 1.0},
    "c": {"shape": "fine", "codebook_size": 512, "rate": 6e-4, "letters": 1.0, "batch": 32},
    "d": {"shape": "fine", "codebook_size": 512, "rate": 1.5e-3, "letters": 2.0},
    "tiny": {"shape": "tiny", "codebook_size": 64, "rate": 2e-3, "letters": 1.0},
}
N_CODEBOOKS = 8

JUDGED = 10  # frames of a clip that the discriminators hear

_DROPPED = 0.25  # of clips: only some of the codebooks reach the decoder


class Run:
    """One run."""

    def __init__(self, args: argparse.Namespace) -> None:
        variant = VARIANTS[args.variant]
        torch.manual_seed(args.seed)
        self.args, self.rng = args, np.random.default_rng(args.seed)
        self.device = torch.device(args.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        self.config = codec_config(variant["shape"], N_CODEBOOKS, variant["codebook_size"])
        self.frame = self.config["downsample_rate"]
        codec = new_codec(self.config).to(self.device)
        weights = Weights(letters=variant["letters"])
        compiles = self.device.type == "cuda" and not args.no_compile
        self.steps = CodecSteps(codec, variant["rate"], weights, compiles=compiles)
        self.step = 0
        self.figures: dict = {"variant": args.variant, "parameters": sum(p.numel() for p in codec.parameters())}

    def warm_up(self) -> None:
        """Compile on noise, before speech is there; where that fails, do without."""
        n = self.args.batch
        noise = 0.1 * torch.randn(n, self.args.frames * self.frame, device=self.device)
        clips = Clips(
            noise, torch.zeros(n, 8, dtype=torch.int64, device=self.device), torch.zeros(n, dtype=torch.int64)
        )
        kept = torch.full((n,), N_CODEBOOKS, device=self.device)
        state = [p.detach().clone() for p in self.steps.codec.parameters()]
        try:
            for _ in range(3):
                self.steps.step(clips, kept, judged=slice(0, JUDGED * self.frame), restarts=None)
        except Exception as error:  # a compiler's failure must not end the run
            print(f"{self.args.variant}: not compiled: {error!r}"[:500], flush=True)
            self.steps = CodecSteps(self.steps.codec, self.steps.rate, self.steps.weights, compiles=False)
        with torch.no_grad():
            for parameter, value in zip(self.steps.codec.parameters(), state, strict=True):
                parameter.copy_(value)
        for optimizer in (self.steps.optimizer, self.steps.judging):
            optimizer.state.clear()

    def train(self, source: ClipSource) -> None:
        """Until the time is up."""
        args, steps = self.args, self.steps
        started = told_at = saved_at = time.time()
        seconds = args.seconds if args.ends is None else min(args.seconds, args.ends - started)
        told_step, judges = 0, False
        validation = source.draw(np.random.default_rng(0), 32, self.args.frames * self.frame)
        told: dict[str, Tensor] = {}
        while True:
            now = time.time()
            share = (now - started) / max(seconds, 1.0)
            if share >= 1 or (args.steps and self.step >= args.steps):
                break
            if args.steps:
                share = max(share, self.step / args.steps)
            if share >= args.judges_from and not judges:
                judges = True
                self.save("before")
            warm = min(1.0, (self.step + 1) / 200)
            steps.set_rate(warm * (0.04 + 0.96 * (1 + math.cos(math.pi * share)) / 2))
            at = int(self.rng.integers(0, args.frames - JUDGED + 1)) * self.frame
            restarts = None
            if share < 0.5 and (self.step in (0, 100) or self.step % 200 == 0):
                restarts = 1e9 if self.step in (0, 100) else 0.05
            clips = source.draw(self.rng, args.batch, self.args.frames * self.frame)
            judged = slice(at, at + JUDGED * self.frame) if judges else None
            told = steps.step(clips, self._kept(), judged=judged, restarts=restarts)
            steps.average_weights(min(0.999, (self.step + 1) / (self.step + 20)))
            self.step += 1
            if now - told_at >= args.tell_s:
                speed = (self.step - told_step) / (now - told_at)
                line = " ".join(f"{name} {float(value):.3f}" for name, value in told.items())
                print(
                    f"codec {args.variant}: {now - started:.0f} s, step {self.step}, {speed:.1f}/s, {line}", flush=True
                )
                told_at, told_step = now, self.step
                if not all(math.isfinite(float(value)) for value in told.values()):
                    self._go_back()
            if now - saved_at >= args.save_s:
                self.save("codec", validation)
                saved_at = time.time()
        self.save("codec", validation)

    def save(self, name: str, validation: Clips | None = None) -> None:
        """Write the averaged weights, rounded, and measure them."""
        with torch.no_grad():
            averaged = Codec(self.steps.codec.config).to(self.device)
            for parameter, value in zip(averaged.parameters(), self.steps.average, strict=True):
                parameter.copy_(value)
        if not all(bool(p.isfinite().all()) for p in averaged.parameters()):
            return
        writing = self.args.output / f".{name}"
        save_codec(writing, self.config, averaged)
        final = self.args.output / name
        final.mkdir(exist_ok=True)
        for file in writing.iterdir():
            file.replace(final / file.name)
        if validation is not None:
            rounded = load_codec(final, self.device)
            self.figures |= {"step": self.step, "perplexities": self.steps.perplexities()}
            self.figures |= self._measure(rounded, validation)
            (self.args.output / "figures.json").write_text(json.dumps(self.figures))
            print(f"codec {self.args.variant}: saved {self.figures}", flush=True)

    @torch.no_grad()
    def _measure(self, codec: Codec, clips: Clips) -> dict[str, float]:
        made = decode_frames(codec, quantize(codec.quantizer, encode_frames(codec, clips.samples)).output)
        mel, phase = SpectralLoss().to(self.device)(made, clips.samples)
        return {"mel": round(float(mel), 4), "phase": round(float(phase), 4)}

    def _kept(self) -> Tensor:
        n = self.args.batch
        some = self.rng.integers(1, N_CODEBOOKS, size=n)
        kept = np.where(self.rng.random(n) < _DROPPED, some, N_CODEBOOKS)
        return torch.from_numpy(kept).to(self.device, non_blocking=True)

    def _go_back(self) -> None:
        """From what is no number to the last averages."""
        print(f"codec {self.args.variant}: no number; back to the averages, at half the rate", flush=True)
        finite = all(bool(value.isfinite().all()) for value in self.steps.average)
        last = self.args.output / "codec"
        with torch.no_grad():
            source = self.steps.average if finite else list(load_codec(last, self.device).parameters())
            for parameter, average, value in zip(
                self.steps.codec.parameters(), self.steps.average, source, strict=True
            ):
                parameter.copy_(value)
                average.copy_(value)
        self.steps.optimizer.state.clear()
        self.steps.judging.state.clear()
        self.steps.rate /= 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("speech", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="a")
    parser.add_argument(
        "--hours", type=float, default=16.0, help="of speech that are waited for, and most that is used"
    )
    parser.add_argument("--seconds", type=float, default=380.0)
    parser.add_argument("--ends", type=float, help="seconds since 1970 at which it ends in any case")
    parser.add_argument("--steps", type=int, default=0, help="end earlier")
    parser.add_argument("--batch", type=int, help="default: 64, or the variant's own")
    parser.add_argument("--frames", type=int, default=32, help="of a clip")
    parser.add_argument(
        "--judges-from", type=float, default=0.58, help="share of the time after which discriminators take part"
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--tell-s", type=float, default=20.0)
    parser.add_argument("--save-s", type=float, default=60.0)
    args = parser.parse_args()
    args.batch = args.batch or VARIANTS[args.variant].get("batch", 64)
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(4 if args.device != "cpu" else 1)
    run = Run(args)
    started = time.time()
    if args.device != "cpu":
        run.warm_up()
        print(f"codec {args.variant}: warm after {time.time() - started:.0f} s", flush=True)
    while (store := Store.open(args.speech, args.hours)).hours < args.hours * 0.97 and time.time() - started < 150:
        time.sleep(2)
    source = ClipSource(store, run.device)
    print(f"codec {args.variant}: {source.hours:.1f} h, {run.figures}", flush=True)
    run.train(source)


if __name__ == "__main__":
    main()
