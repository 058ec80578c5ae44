"""Train one codec, one process a device, for a given time; called again with the same OUTPUT, it goes on:

    torchrun --nproc-per-node 2 -m small_voice.train_codec SPEECH OUTPUT --variant p --seconds 480 --total 960

`OUTPUT/codec` is the published layout of the averaged weights, rounded to 16 bit, written every `--save-s`; beside it
`figures.json`, and `state.pt`, from which the next call goes on. The schedule runs over `--total` seconds of training.
`--weights DIR` begins from a codec in the published layout instead of from nothing.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed

from sglang_moss.codec.codec import Codec

from .codebooks import limit_scales
from .codec_config import VARIANTS, codec_config, load_codec, new_codec, save_codec
from .codec_data import ClipSource
from .codec_forward import decode_frames, encode_frames, quantize
from .codec_losses import SpectralLoss
from .codec_steps import NAMES, PLAN_ROWS, CodecSteps, Sizes, Weights
from .letter_book import refuse
from .speech_store import Store

JUDGED = 10  # frames of a clip that the discriminators hear
BLOCK = 20  # steps between two looks at the clock
_DROPPED = 0.25  # of clips: only some of the codebooks reach the decoder
_EAGER = 5  # steps before a graph is made of them
_MOST_BAD = 0.05  # of the steps of a telling that may be no number


class Run:
    """One process's part of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.rank = args, distributed.get_rank()
        variant = VARIANTS[args.variant]
        torch.manual_seed(args.seed)
        self.rng = np.random.default_rng([args.seed, self.rank, int(time.time()) if args.resume else 0])
        self.device = torch.device(args.device, int(os.environ["LOCAL_RANK"])) if args.device != "cpu" else "cpu"
        self.config = codec_config(variant["shape"], variant["n_codebooks"], variant["codebook_size"])
        if args.weights:
            self.config = json.loads((args.weights / "config.json").read_text())
        self.n_codebooks = self.config["quantizer_kwargs"]["num_quantizers"]
        self.frame = self.config["downsample_rate"]
        codec = new_codec(self.config).to(self.device)
        if args.weights:
            with torch.no_grad():
                for mine, value in zip(
                    codec.parameters(), load_codec(args.weights, self.device).parameters(), strict=True
                ):
                    mine.copy_(value)
        self.source = ClipSource(Store.open(args.speech, args.hours), torch.device(self.device))
        sizes = Sizes(args.batch, args.frames * self.frame, max(1, args.batch // 2), JUDGED * self.frame)
        self.steps = CodecSteps(codec, self.source, sizes, variant["rate"], Weights(), args.mode, args.keep_codes)
        self.step, self.seconds_before, self.judges_began = 0, 0.0, -1
        self.n_back, self.heard_from, self.has_looked = 0, 500, False
        self.figures: dict = {"variant": args.variant, "parameters": sum(p.numel() for p in codec.parameters())}
        if args.resume:
            self._load()
        elif args.listeners:
            state = torch.load(args.listeners, map_location=self.device, weights_only=True)
            self.steps.load_listeners(state)
            self.heard_from = -2500  # they have learnt already

    def train(self) -> None:
        """Until the time is up."""
        args = self.args
        started = told_at = saved_at = time.time()
        told_step, validation = self.step, self.source.draw(np.random.default_rng(0), 32, args.frames * self.frame)
        while True:
            now = time.time()
            seconds = self.seconds_before + now - started
            ends = now - started >= args.seconds or (args.ends is not None and now >= args.ends)
            tells, saves = now - told_at >= args.tell_s, now - saved_at >= args.save_s
            share, ends, tells, saves = self._agreed(seconds / args.total, ends, tells, saves)
            if args.steps:
                share, ends = max(share, self.step / args.steps), ends or self.step >= args.steps
            if tells:
                told_step, told_at = self._tell(share, told_step, told_at, seconds), now
            if saves or ends:
                self.save(validation, seconds)
                saved_at = time.time()
            if ends:
                break
            self._block(share)

    def _block(self, share: float) -> None:
        steps = self.steps
        judged = share >= self.args.judges_from
        if judged and self.judges_began < 0:
            self.judges_began = self.step
        falling = min(1.0, (1 - share) / 0.4) if share < 1 else 0.0  # constant, then as a cosine
        rate = min(1.0, (self.step + BLOCK) / 400) * (0.02 + 0.98 * (1 - math.cos(math.pi * falling)) / 2)
        for name, group in steps.groups.items():
            group.set_rate(rate if name != "judges" else min(1.0, max(0.1, 2 * rate)))
        steps.share_heard.fill_(min(1.0, max(0.0, (self.step - self.heard_from) / 2000)))
        steps.share_judged.fill_(min(1.0, max(0.0, (self.step - self.judges_began - 200) / 500)) if judged else 0.0)
        plans = self._plans()
        for i, plan in enumerate(plans):
            if i == _EAGER:
                steps.capture(judged=judged)
            steps.plan.copy_(plan)
            steps.step(judged=judged)
        self.step += BLOCK
        blocks = self.step // BLOCK
        is_new = blocks in (1, 5) and not self.args.weights
        if not steps.keeps_codes and (is_new or (share < 0.4 and blocks % 10 == 0)):
            steps.codebooks.restart_dead(steps.sought, 1e9 if is_new else 0.05)
            for tensor in steps.codebooks.tensors():
                distributed.broadcast(tensor, 0)
        steps.average_weights(min(0.98, blocks / (blocks + 10)))

    def _plans(self) -> Tensor:
        n = self.args.batch
        plans = np.zeros((BLOCK, PLAN_ROWS, n), np.int64)
        for plan in plans:
            plan[:5] = self.source.plan(self.rng, n, self.args.frames * self.frame)
            some = self.rng.integers(1, self.n_codebooks, size=n)
            # A decoder whose codes stay is that of a language model, which gives it all of them.
            dropped = 0.0 if self.steps.keeps_codes else _DROPPED
            plan[5] = np.where(self.rng.random(n) < dropped, some, self.n_codebooks)
            plan[6] = self.rng.integers(0, self.args.frames - JUDGED + 1, size=n) * self.frame
        return torch.from_numpy(plans).to(self.device)

    def _agreed(self, *values: float) -> tuple:
        """The first process's numbers, in all of them; this waits for the device."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, 0)
        share, *flags = tensor.tolist()
        return share, *(bool(flag) for flag in flags)

    def _tell(self, share: float, told_step: int, told_at: float, seconds: float) -> int:
        steps, n = self.steps, max(1, self.step - told_step)
        values = (steps.told / n).tolist()
        steps.told.zero_()
        groups = steps.groups
        bad = torch.stack([group.n_bad for group in groups.values()])
        distributed.all_reduce(bad)
        clipped = [int(group.n_clipped) for group in groups.values()]
        if self.rank == 0:
            line = " ".join(f"{name} {value:.3f}" for name, value in zip(NAMES, values, strict=True))
            norms = [round(float(group.mean_norm), 2) for group in groups.values()]
            print(
                f"codec {self.args.variant}: {seconds:.0f} s, {share:.2f}, step {self.step}, "
                f"{n / (time.time() - told_at):.1f}/s, {line}, norms {norms}, clipped {clipped}, "
                f"bad {[int(x) for x in bad]}",
                flush=True,
            )
        for group in groups.values():
            group.n_bad.zero_(), group.n_clipped.zero_()
        if float(bad.max()) > 0 and not self.has_looked:
            self.has_looked = True
            self._look_for_bad()
        if float(bad.max()) > _MOST_BAD * n * distributed.get_world_size():
            self._go_back()
        return self.step

    def _look_for_bad(self) -> None:
        """Say which parameters' gradients are no numbers, without changing any."""
        steps = self.steps
        for plan in self._plans()[:8]:
            steps.plan.copy_(plan)
            steps.fill(judged=self.judges_began >= 0)
            names = [
                name for name, p in steps.codec.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
            ]
            if names:
                print(
                    f"codec {self.args.variant}: {len(names)} gradients are no numbers: {names[:4]} ... {names[-4:]}",
                    flush=True,
                )
        steps.told.zero_()

    def save(self, validation, seconds: float) -> None:
        """Write the averaged weights, rounded, measure them, and write what a later call needs."""
        steps, output = self.steps, self.args.output
        averaged = Codec(steps.codec.config).to(self.device)
        with torch.no_grad():
            for parameter, value in zip(averaged.parameters(), steps.average, strict=True):
                parameter.copy_(value)
        limit_scales(averaged.quantizer)
        if not all(bool(p.isfinite().all()) for p in averaged.parameters()):
            print(f"codec {self.args.variant}: averages are no numbers; not saved", flush=True)
        elif self.rank == 0:
            writing = output / ".codec"
            save_codec(writing, self.config, averaged)
            self.figures |= {"step": self.step, "seconds": round(seconds)}
            self.figures |= {"perplexities": steps.codebooks.perplexities()}
            self.figures |= self._measure(load_codec(writing, self.device), validation)
            (writing / "figures.json").write_text(json.dumps(self.figures))
            (output / "codec").mkdir(exist_ok=True)
            for file in sorted(writing.iterdir()):
                file.replace(output / "codec" / file.name)
            more = {"step": self.step, "seconds": seconds, "judges_began": self.judges_began}
            torch.save(steps.state() | more, output / ".state.pt")
            (output / ".state.pt").replace(output / "state.pt")
            print(f"codec {self.args.variant}: saved {self.figures}", flush=True)
        distributed.barrier()

    @torch.no_grad()
    def _measure(self, codec: Codec, clips) -> dict[str, float]:
        made = decode_frames(codec, quantize(codec.quantizer, encode_frames(codec, clips.samples)).output)
        mel, phase = SpectralLoss().to(self.device)(made, clips.samples)
        return {"mel": round(float(mel), 4), "phase": round(float(phase), 4)}

    def _load(self) -> None:
        state = torch.load(self.args.output / "state.pt", map_location=self.device, weights_only=True)
        self.steps.load(state)
        self.step, self.seconds_before = state["step"], state["seconds"]
        self.judges_began = state["judges_began"]

    def _go_back(self) -> None:
        """To the last state that was saved, at half the rate; the third time the run ends, and says so."""
        self.n_back += 1
        path = self.args.output / "state.pt"
        if self.n_back > 2 or not path.is_file():
            raise SystemExit(f"codec {self.args.variant}: no numbers at step {self.step}, and nothing to go back to")
        print(f"codec {self.args.variant}: no numbers; back to the last state, at half the rate", flush=True)
        self.steps.load(torch.load(path, map_location=self.device, weights_only=True))
        for group in self.steps.groups.values():
            group.rate /= 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("speech", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="p")
    parser.add_argument("--weights", type=Path, help="a codec to begin from")
    parser.add_argument("--keep-codes", action="store_true", help="train the decoder alone")
    parser.add_argument("--listeners", type=Path, help="state.pt whose recogniser and discriminators are taken")
    parser.add_argument("--hours", type=float, default=40.0, help="of speech that are used at most")
    parser.add_argument("--waits-s", type=float, default=90.0, help="for that much speech, at most")
    parser.add_argument("--seconds", type=float, default=480.0, help="of this call")
    parser.add_argument("--total", type=float, default=960.0, help="seconds of all calls together")
    parser.add_argument("--ends", type=float, help="seconds since 1970 at which this call ends in any case")
    parser.add_argument("--steps", type=int, default=0, help="end earlier")
    parser.add_argument("--batch", type=int, default=48, help="clips a process")
    parser.add_argument("--frames", type=int, default=32, help="of a clip")
    parser.add_argument("--judges-from", type=float, default=0.4, help="share of the time without discriminators")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--mode", choices=("graph", "compiled", "eager"), default="graph")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tell-s", type=float, default=20.0)
    parser.add_argument("--save-s", type=float, default=60.0)
    args = parser.parse_args()
    if args.weights:
        refuse(args.weights)
    args.output.mkdir(parents=True, exist_ok=True)
    args.resume = (args.output / "state.pt").is_file()
    torch.set_num_threads(2 if args.device != "cpu" else 1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if args.device != "cpu":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_stream(torch.cuda.Stream())  # graphs are made on a stream of their own
    distributed.init_process_group("nccl" if args.device != "cpu" else "gloo")
    started = time.time()
    while time.time() - started < args.waits_s and Store.open(args.speech, args.hours).hours < args.hours * 0.97:
        time.sleep(3)
    distributed.barrier()
    run = Run(args)
    if run.rank == 0:
        begun = f"from step {run.step}" if args.resume else f"from {args.weights}" if args.weights else "from nothing"
        print(f"codec {args.variant}: {run.source.hours:.1f} h, {begun}, {args.mode}, {run.figures}", flush=True)
    run.train()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
