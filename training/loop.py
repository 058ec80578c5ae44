"""The loop: packs in, steps out; what is kept, told and tried on the way."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.optim import AdamW

from sglang_moss.request.template import TTSD

from .checkpoints import Checkpoints, read_state
from .clock import Clock
from .distributed import World
from .errors import TrainingError
from .export import MODEL_NAME, export
from .flops import step_flops
from .loading import PackOrder, Packs, example_lengths
from .metrics import StepMetrics
from .model import SpeechModel
from .optimizer import clip, make_optimizer, set_rate
from .planning import deal
from .progress import Progress
from .rows import label_counts
from .run_plan import RunPlan
from .samples import Speaker
from .schedule import shifted_rate_share
from .trained import Trained
from .validation import Best, Validation


class Loop:
    """One run on one rank, from the step where it stands to its end."""

    def __init__(self, plan: RunPlan, model: SpeechModel, trained: Trained, world: World) -> None:
        config = plan.config
        self.plan, self.config, self.world = plan, config, world
        self.model, self.trained = model, trained
        self.optimizer: AdamW = make_optimizer(
            trained.tensors,
            betas=config.optimizer.betas,
            eps=config.optimizer.eps,
            weight_decay=config.optimizer.weight_decay,
            decay_all=config.optimizer.decay_all,
        )
        self.output = Path(config.output)
        kept = config.checkpoints
        self.checkpoints = Checkpoints(self.output / "checkpoints", kept.keep, world, background=kept.background)
        self.best = Best()
        self.step = 0
        self.n_steps = plan.n_steps
        self._clock = None if config.seconds is None else Clock(config.seconds, world)
        self._stopped_early = False
        self._validation = self._make_validation()
        self._speaker = Speaker(plan, world) if config.samples.every else None

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            TrainingError: it is of a run with other data or settings.
        """
        state = read_state(path)
        for key, value in self.plan.identity.items():
            if state["identity"].get(key) != value:
                raise TrainingError(
                    f"{path} is of a run with {key} {state['identity'].get(key)}, now it is {value}: "
                    "set it back, or take another output"
                )
        self.checkpoints.load(path, self.trained.tensors, self.optimizer)
        self.trained.publish()
        self.step = state["step"]
        self.best = Best(**state["best"])

    def run(self, progress: Progress | None) -> None:
        """Train until the last step, or until validation gets no better.

        Args:
            progress: what is told, on rank 0.
        """
        config, device = self.config, self.world.device
        dataset = self.plan.packs_of(self.plan.training)
        cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of this rank's share
        n_workers = min(config.data.workers, max(1, cores))  # more would only take memory
        packs = Packs(dataset, self.orders(self.step), device, n_workers, config.data.ahead)
        metrics = StepMetrics(device)
        while self.step < self.n_steps and not self._stopped_early:
            line = self.one_step(packs, metrics)
            if self._clock is not None:
                self.n_steps = self._clock.n_steps(self.step, self.n_steps, self.plan.n_steps)
            self._tell(progress, line)
            if self._pauses():
                self._tell(progress, metrics.flush())
                self._pause(progress)
                metrics.rest()
        self._tell(progress, metrics.flush())
        if self.checkpoints.latest() != self.checkpoints.at(self.step):
            self.save()
        self.checkpoints.finish()

    def save(self) -> None:
        """Keep where the run stands."""
        state = {
            "identity": self.plan.identity,
            "best": vars(self.best),
            "best_step": self.best.step if self._keeps_best() else None,
            "config": self.config.to_dict(),
        }
        self.checkpoints.save(self.step, self.trained.tensors, self.optimizer, state)

    def export(self, step: int) -> None:
        """Write the model, whose weights are those of a step, in the layout of its base."""
        config = self.config
        report = {"step": step, "config": config.to_dict(), "identity": self.plan.identity}
        if self.plan.template is TTSD:
            report["profile"] = TTSD.name
        export(Path(config.model), self.output / MODEL_NAME, config, self.trained.tensors, report, self.world)

    def take_best(self) -> int:
        """Load the weights that are exported, and say of which step they are."""
        best = self.best.step
        if self._keeps_best() and best is not None and best != self.step and self.checkpoints.at(best).exists():
            self.checkpoints.load(self.checkpoints.at(best), self.trained.tensors)
            self.trained.publish()
            return best
        return self.step

    def one_step(self, packs: Packs, metrics: StepMetrics) -> dict[str, Any] | None:
        """Train one step on the next of this rank's packs; returns the line of the step before, if there was one."""
        chosen = self.plan.planner.step(self.step)
        self.trained.zero_grad()
        waited_before = packs.waited_s
        loss_sum = torch.zeros((), dtype=torch.float32, device=self.world.device)
        sums = torch.zeros(1 + self.plan.shape.tokens.n_vq, dtype=torch.float32, device=self.world.device)
        n_micro_steps = -(-len(chosen) // self.world.size)
        for micro_step in range(n_micro_steps):
            self._seed_dropout(micro_step)
            self.trained.micro_step(is_last=micro_step == n_micro_steps - 1)
            loss, own = self.model(next(packs))
            loss.backward()
            loss_sum += loss.detach()
            sums += own
        self.trained.reduce()
        norm = clip(self.trained.tensors.values(), self.config.optimizer.clip)
        rate = self.config.rate * self._rate_share()
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.trained.publish()

        size, n_vq = self.plan.size_of(chosen), self.plan.shape.tokens.n_vq
        numbers = torch.cat([loss_sum[None], norm.float().reshape(1), sums])
        if self.world.size > 1:
            distributed.all_reduce(numbers)
            numbers[1] = norm
        frames = self.plan.training.n_frames[[i for pack in chosen for i in pack]]
        facts = {
            "step": self.step + 1,
            "epoch": self.plan.planner.place(self.step)[0],
            "rate": rate,
            "rows": size.rows,
            "packs": len(chosen),
            "waited_s": packs.waited_s - waited_before,
            "flops": step_flops(self.plan.shape, size, frozen=self.config.method == "lora"),
            "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if self.world.device.type == "cuda" else None,
        }
        self.step += 1
        return metrics.put(numbers, facts, label_counts(int(frames.sum()), len(frames), n_vq))

    def orders(self, first: int) -> Iterator[PackOrder]:
        """This rank's packs, from a step on to the last."""
        for step in range(first, self.plan.n_steps):
            packs = self.plan.planner.step(step)
            orders = dict(zip(packs, self.plan.orders(packs, step), strict=True))
            for pack in deal(packs, self.world.rank, self.world.size):
                yield self.plan.nothing() if pack is None else orders[pack]

    def _rate_share(self) -> float:
        optimizer, n_steps = self.config.optimizer, self.n_steps
        return shifted_rate_share(
            optimizer.schedule,
            self.step,
            round(optimizer.warmup_share * n_steps),
            n_steps,
            n_decay=round(optimizer.decay_share * n_steps),
            lowest=optimizer.lowest,
        )

    def _seed_dropout(self, micro_step: int) -> None:
        """What is dropped is a function of the step, so that a run that goes on drops the same."""
        if self.config.method == "lora" and self.config.lora.dropout:
            mark = f"{self.config.seed} {self.step} {micro_step} {self.world.rank}".encode()
            torch.manual_seed(int.from_bytes(hashlib.sha256(mark).digest()[:7], "big"))

    def _pauses(self) -> bool:
        config = self.config
        return (
            self.step % config.checkpoints.every == 0
            or (self._validation is not None and self.step % config.validation.every == 0)
            or (self._speaker is not None and self.step % config.samples.every == 0)
        )

    def _pause(self, progress: Progress | None) -> None:
        config, is_best = self.config, False
        if self._validation is not None and self.step % config.validation.every == 0:
            loss, channels = self._validation.run(self.model)
            is_best = self.best.update(loss, self.step)
            if progress is not None:
                line = {"step": self.step, "validation_loss": loss, "validation_channels": channels.round(5).tolist()}
                progress.validated(line)
            patience = config.validation.patience
            if patience and self.best.n_since >= patience:
                self._stopped_early = True
                if progress is not None:
                    progress.say(f"no better validation loss since step {self.best.step}: training ends")
        if self._speaker is not None and self.step % config.samples.every == 0:
            self._speaker.speak(self.model, self.step)
        self.trained.publish()
        if self.step % config.checkpoints.every == 0 or (is_best and self._keeps_best()):
            self.save()
            if config.checkpoints.export:
                self.export(self.step)

    def _keeps_best(self) -> bool:
        return self._validation is not None and self.config.validation.export_best

    def _tell(self, progress: Progress | None, line: dict[str, Any] | None) -> None:
        if progress is not None and line is not None and line["step"] % self.config.log_every == 0:
            progress.step(line | {"time": time.time()})

    def _make_validation(self) -> Validation | None:
        held_out = self.plan.validation
        if held_out is None:
            return None
        lengths = example_lengths(held_out, self.plan.shape.tokens.n_vq)
        dataset = self.plan.packs_of(held_out)
        return Validation(dataset, lengths, self.config.packing.rows, self.plan.weights, self.world)
