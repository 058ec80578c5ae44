"""Speech of the model while it is trained, as WAV files: `samples/step-00000100/0.wav`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglang_moss.audio.wav import wav_bytes
from sglang_moss.codec.pcm import to_pcm16

from .config import CHECKPOINT_KEYS
from .distributed import World
from .example import Example
from .generation import Drawing, generate
from .model import SpeechModel
from .rows import prompt_rows
from .run_plan import RunPlan


class Speaker:
    """Speaks the texts that the configuration names, and some examples with their references."""

    def __init__(self, plan: RunPlan, world: World) -> None:
        """The codec is read when it is first needed.

        Raises:
            TrainingError: there is none.
        """
        from .data.checkpoint import Checkpoint

        config = plan.config
        self._plan, self._world = plan, world
        self._files = Checkpoint.open(config.model, config.codec, CHECKPOINT_KEYS).codec
        n_vq = plan.shape.tokens.n_vq
        nothing = np.empty((0, n_vq), np.int32)
        texts = [Example(f"text {i}", {"text": text}, nothing, None) for i, text in enumerate(config.samples.texts)]
        source = plan.validation if plan.validation is not None else plan.training
        self._spoken = texts + [source[i] for i in range(min(config.samples.examples, len(source)))]

    def speak(self, model: SpeechModel, step: int) -> list[Path]:
        """Write a WAV file for each; the codec takes its memory only meanwhile."""
        config, plan = self._plan.config.samples, self._plan
        codec: Any = None
        if self._world.leads:
            codec = self._files.load(self._world.device)
        directory = Path(plan.config.output) / "samples" / f"step-{step:08d}"
        written = []
        frame_rate = None if codec is None else codec.config.frame_rate
        max_frames = max(1, int(config.max_seconds * self._world.from_leader(frame_rate)))
        for i, example in enumerate(self._spoken):
            prompt = prompt_rows(example, plan.tokenizer, plan.shape.tokens, plan.template)
            drawing = Drawing(config.temperature, config.top_p, config.top_k, config.repetition_penalty, seed=i)
            codes = generate(model, prompt, drawing, max_frames, self._world)
            if codec is not None:
                pcm = to_pcm16(codec.decode(torch.from_numpy(codes)))
                directory.mkdir(parents=True, exist_ok=True)
                written.append(directory / f"{i}.wav")
                written[-1].write_bytes(wav_bytes(pcm.cpu().numpy(), codec.config.sampling_rate))
        del codec
        if self._world.device.type == "cuda":
            torch.cuda.empty_cache()
        return written
