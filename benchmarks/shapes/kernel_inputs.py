"""What the decoding step's kernels are measured on: the real shapes, random weights, slots as in a running server."""

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from sglang_moss.config import SpecialTokens
from sglang_moss.step.slots import SlotState

DEVICE = torch.device("cuda")
N_INPUTS = 4
_PREFIX = 100  # rows of each prompt


@dataclass(frozen=True)
class Shape:
    n_vq: int = 16
    n_codes: int = 1025
    hidden_size: int = 4096
    vocab_size: int = 155_648

    @property
    def tokens(self) -> SpecialTokens:
        first = self.vocab_size - 8
        return SpecialTokens(*range(first, first + 8), pad_code=self.n_codes - 1, n_vq=self.n_vq)


class Inputs:
    """Random weights, and `N_INPUTS` batches of what the backbone would give; in the audio or before it."""

    def __init__(self, shape: Shape, dtype: torch.dtype, n_requests: int, weights: dict[str, Tensor]) -> None:
        self.shape, self.n, self.weights = shape, n_requests, weights
        generator = torch.Generator(DEVICE).manual_seed(n_requests)

        def noise(*size: int, std: float = 1.0) -> Tensor:
            return (std * torch.randn(size, generator=generator, device=DEVICE)).to(dtype)

        self.slots = torch.arange(1, n_requests + 1, device=DEVICE)
        self.seq_lens = torch.full((n_requests,), _PREFIX + 200, dtype=torch.int64, device=DEVICE)
        self.text_ids = torch.full((n_requests,), shape.tokens.gen_slot, device=DEVICE)
        self.hidden = [noise(n_requests, shape.hidden_size) for _ in range(N_INPUTS)]
        self.audio_logits = [noise(n_requests, shape.n_vq, shape.n_codes, std=2.0) for _ in range(N_INPUTS)]

    def state(self, in_audio: bool, mixed: bool) -> SlotState:
        """Slots with the recommended settings, or with a mix of them."""
        shape = self.shape
        state = SlotState(self.n + 1, shape.n_codes - 1, shape.tokens, DEVICE)
        generator = torch.Generator().manual_seed(0)
        state.prompt_len[1:] = _PREFIX
        state.audio_rows[1:] = 150 if in_audio else 0
        state.codes[1:] = torch.randint(shape.n_codes, (self.n, shape.n_vq), generator=generator).to(DEVICE)
        state.seen[1:] = (torch.rand(state.seen[1:].shape, generator=generator) < 0.2).to(DEVICE)
        state.seed[1:] = torch.randint(2**63 - 1, (self.n,), generator=generator).to(DEVICE)
        line = torch.arange(self.n, device=DEVICE)
        for tensor, recommended, others in (
            (state.temperature, 1.1, (0.0, 0.8)),
            (state.top_p, 0.9, (1.0, 0.5)),
            (state.top_k, 50, (-1, 7)),
            (state.penalty, 1.1, (1.0, 1.7)),
        ):
            tensor[1:] = recommended
            if mixed:
                period = 5 if tensor is state.temperature else 4
                tensor[1:][line % period == 1] = others[0]
                tensor[1:][line % period == 3] = others[1]
        return state

    def begin(self, functions: ModuleType, state: SlotState) -> Tensor:
        tables = self.weights["text_table"], self.weights["code_table"]
        return functions.begin_step(state, self.slots, self.text_ids, *tables)

    def finish(self, functions: ModuleType, state: SlotState, i: int = 0) -> Tensor:
        head = self.weights["text_head"]
        return functions.finish_step(state, self.slots, self.seq_lens, self.hidden[i], head, self.audio_logits[i])


def random_weights(shape: Shape, dtype: torch.dtype) -> dict[str, Tensor]:
    """Text table and head [V, D], code table and audio heads [n_vq * n_codes, D]."""
    sizes = {"text": shape.vocab_size, "code": shape.n_vq * shape.n_codes}

    def noise(n_rows: int, std: float) -> Tensor:
        return torch.randn(n_rows, shape.hidden_size, dtype=dtype, device=DEVICE) * std

    head_std = 2 * shape.hidden_size**-0.5
    return {f"{name}_table": noise(n, 1.0) for name, n in sizes.items()} | {
        f"{name}_head": noise(n, head_std) for name, n in sizes.items()
    }
