"""Speech of the model as it is trained, by the server's own rule of drawing rows.

prompt -> one pass -> draw a row -> one pass over it, with the keys and values so far -> ... -> end of audio
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import distributed
from transformers import DynamicCache

from sglang_moss.delay.layout import remove_delay
from sglang_moss.delay.state import ends
from sglang_moss.request.prompt import SpeechPrompt
from sglang_moss.request.settings import ChannelSampling, RequestOptions
from sglang_moss.step import eager
from sglang_moss.step.slots import SlotState

from .distributed import World
from .model import SpeechModel

_SLOT = 1  # slot 0 is nobody's


@dataclass(frozen=True)
class Drawing:
    """How rows are drawn; the same for text ids and codes."""

    temperature: float = 1.1  # 0: always the likeliest
    top_p: float = 0.9
    top_k: int = 50
    repetition_penalty: float = 1.1
    seed: int = 0


class _Starting:
    """What a slot is started with: of a `SpeechProgress` what it takes, for SGLang need not be there."""

    def __init__(self, prompt: np.ndarray, drawing: Drawing) -> None:
        sampling = ChannelSampling(drawing.temperature, drawing.top_p, drawing.top_k or -1)
        asked = {"repetition_penalty": drawing.repetition_penalty, "sampling_seed": drawing.seed}
        options = RequestOptions.parse(asked)
        self.options = replace(options, text=sampling, audio=sampling)
        self.prompt = SpeechPrompt(prompt, prompt[:0, 1:])
        self.request = self
        self.rows = ()
        self.last_audio_row = 0

    def all_rows(self) -> np.ndarray:
        return self.prompt.rows.astype(np.int64)


@torch.no_grad()
def generate(model: SpeechModel, prompt: np.ndarray, drawing: Drawing, max_frames: int, world: World) -> np.ndarray:
    """Speak after a prompt.

    Args:
        model: on every rank of `world`, which all have to call this.
        prompt: [P, 1 + n_vq] int32, from `rows.prompt_rows`.
        drawing: settings.
        max_frames: stop there.
        world: rank 0 draws.
    Returns:
        [T, n_vq] int64 codes; T may be 0.
    """
    tokens, device = model.shape.tokens, world.device
    state = SlotState(2, model.shape.n_codes - 1, tokens, device)
    slots = torch.tensor([_SLOT], device=device)
    starting: Any = _Starting(prompt, drawing)
    state.start(slots, [starting])

    was_training = model.training
    model.eval()
    cache = DynamicCache(config=model.shape.backbone)
    next_rows, drawn = torch.from_numpy(prompt).to(device), []
    try:
        # The row of <|audio_start|>, those of the frames, and those that flush the delay pattern.
        while len(drawn) < max_frames + tokens.n_vq + 2:
            text_logits, audio_logits = model(next_rows, cache)
            n_rows = torch.tensor([len(prompt) + len(drawn)], device=device)
            row = eager.draw_rows(text_logits, audio_logits, state, slots, n_rows)
            if world.size > 1:  # one rank decides, lest they part company over a rounding
                distributed.broadcast(row, src=0)
            state.write(slots, row[:, 1:])
            state.advance(slots, row[:, 0])
            drawn.append(row[0].cpu().numpy())
            if ends(int(drawn[-1][0]), tokens):
                break
            next_rows = row
    finally:
        model.train(was_training)
    return _frames(np.array(drawn), tokens.n_vq, tokens.audio_start, max_frames)


def _frames(rows: np.ndarray, n_vq: int, audio_start: int, max_frames: int) -> np.ndarray:
    """Whole frames of drawn rows [n, 1 + n_vq]: those after the start, up to a row that ends it, if there was one."""
    starts = np.flatnonzero(rows[:, 0] == audio_start)
    if not len(starts):
        return np.empty((0, n_vq), np.int64)
    codes = rows[starts[0] + 1 :, 1:]
    if len(rows) < max_frames + n_vq + 2:
        codes = codes[:-1]  # the row that ended it
    if len(codes) < n_vq:
        return np.empty((0, n_vq), np.int64)
    return remove_delay(codes)[:max_frames]
