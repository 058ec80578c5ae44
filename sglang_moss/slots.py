"""Audio state of every request slot: tensors with one row per `req_pool_idx`, read and written inside the forward pass.

Slot 0 is SGLang's padding slot: entries of a captured batch that stand for nobody point at it. Every index derived from
a slot's state stays in range whatever the slot holds, so that writes of padding entries are harmless.
"""

import numpy as np
import torch
from torch import Tensor

from sglang_moss.config import SpecialTokens
from sglang_moss.delay import DelayState, advance, replay
from sglang_moss.speech import SpeechProgress


class SlotState:
    """Delay state, last codes, penalty history and sampling settings of `n_slots` request slots.

    Filled for a slot by `start` in the forward pass of the last prefill chunk, always whole, so that nothing of the
    slot's former owner is left; changed by `advance` and `write` in every decode step.
    """

    def __init__(self, n_slots: int, audio_vocab_size: int, tokens: SpecialTokens, device: torch.device) -> None:
        self.tokens = tokens
        n_vq = tokens.n_vq

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(n_slots, *shape, dtype=dtype, device=device)

        self.prompt_len = zeros(dtype=torch.int32)
        self.audio_rows = zeros(dtype=torch.int32)
        self.flush_rows = zeros(dtype=torch.int32)
        self.last_audio_row = zeros(dtype=torch.int32)
        self.codes = torch.full((n_slots, n_vq), tokens.pad_code, dtype=torch.int64, device=device)
        # History of the repetition penalty: codebook 0 has its own, the others share one.
        self.seen = zeros(2, audio_vocab_size + 1, dtype=torch.bool)
        self.seed = zeros(dtype=torch.int64)
        self.temperature = zeros(2, dtype=torch.float32)  # text, audio
        self.top_p = torch.ones(n_slots, 2, dtype=torch.float32, device=device)
        self.top_k = torch.ones(n_slots, 2, dtype=torch.int32, device=device)
        self.penalty = torch.ones(n_slots, dtype=torch.float32, device=device)

    def start(self, slots: Tensor, progresses: list[SpeechProgress | None]) -> None:
        """Set up slots [B] (int64) for requests whose next row is the first, or the one after their accepted rows.

        A request that carries no speech (a health check) gets a harmless slot: greedy, outside audio.
        """
        device = slots.device
        states = [_SlotStart.of(progress, self) for progress in progresses]

        def put(target: Tensor, values: list) -> None:
            target.index_copy_(0, slots, to_device(np.array(values), device).to(target.dtype))

        put(self.prompt_len, [s.prompt_len for s in states])
        put(self.audio_rows, [s.audio_rows for s in states])
        put(self.flush_rows, [s.flush_rows for s in states])
        put(self.last_audio_row, [s.last_audio_row for s in states])
        put(self.codes, [s.codes for s in states])
        put(self.seen, [s.seen for s in states])
        put(self.seed, [s.seed for s in states])
        put(self.temperature, [s.temperature for s in states])
        put(self.top_p, [s.top_p for s in states])
        put(self.top_k, [s.top_k for s in states])
        put(self.penalty, [s.penalty for s in states])

    def advance(self, slots: Tensor, text_ids: Tensor) -> None:
        """Move the slots [B] past the rows whose text ids [B] were accepted."""
        audio_rows, flush_rows = advance(self.audio_rows[slots], self.flush_rows[slots], text_ids, self.tokens)
        self.audio_rows.index_copy_(0, slots, audio_rows.to(torch.int32))
        self.flush_rows.index_copy_(0, slots, flush_rows.to(torch.int32))

    def delay_state(self, slots: Tensor, seq_lens: Tensor) -> DelayState:
        """The delay state of slots [B] whose sequences hold seq_lens [B] rows."""
        return DelayState(
            audio_rows=self.audio_rows[slots],
            flush_rows=self.flush_rows[slots],
            row=(seq_lens - self.prompt_len[slots]).to(torch.int32),
            last_audio_row=self.last_audio_row[slots],
        )

    def write(self, slots: Tensor, codes: Tensor) -> None:
        """Keep the codes [B, n_vq] just drawn: the next step embeds them, the penalty remembers them."""
        self.codes.index_copy_(0, slots, codes)
        history = self.seen[slots]
        history[:, 0].scatter_(1, codes[:, :1], True)
        history[:, 1].scatter_(1, codes[:, 1:], True)
        self.seen.index_copy_(0, slots, history)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array`; to a GPU from pinned memory, so that the host does not wait for the work queued there."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class _SlotStart:
    """Host values of one slot before its next row."""

    prompt_len = audio_rows = flush_rows = last_audio_row = seed = 0
    temperature, top_p, top_k, penalty = (0.0, 0.0), (1.0, 1.0), (1, 1), 1.0

    def __init__(self, codes: np.ndarray, seen: np.ndarray) -> None:
        self.codes = codes
        self.seen = seen

    @classmethod
    def of(cls, progress: SpeechProgress | None, state: SlotState) -> "_SlotStart":
        tokens = state.tokens
        seen = np.zeros(state.seen.shape[1:], dtype=bool)
        if progress is None:
            return cls(np.full(tokens.n_vq, tokens.pad_code), seen)
        request, options = progress.request, progress.request.options
        rows = progress.all_rows()
        seen[0, rows[:, 1]] = True
        seen[1, rows[:, 2:]] = True
        start = cls(rows[-1, 1:], seen)
        start.prompt_len = len(request.prompt.rows)
        start.audio_rows, start.flush_rows = replay(rows[:, 0], tokens)
        start.last_audio_row = request.last_audio_row
        start.seed = options.seed
        start.temperature = (options.text.temperature, options.audio.temperature)
        start.top_p = (options.text.top_p, options.audio.top_p)
        start.top_k = (options.text.top_k, options.audio.top_k)
        start.penalty = options.repetition_penalty
        return start
