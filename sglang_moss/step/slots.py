"""Audio state of every request slot: tensors with one row per `req_pool_idx`, read and written inside the forward pass.

Slot 0 is SGLang's padding slot: entries of a captured batch that stand for nobody point at it. It never advances, so
that nothing is drawn for it, and every index derived from a slot's state stays in range whatever the slot holds.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sglang_moss.config import SpecialTokens
from sglang_moss.delay.state import DelayState, advance, ends, replay

if TYPE_CHECKING:  # kernels and their benchmark need the slots, but no SGLang
    from sglang_moss.request.speech import SpeechProgress

PADDING_SLOT = 0


class SlotState:
    """Delay state, last codes, penalty history and sampling settings of `n_slots` request slots.

    Filled for a slot by `start` in the forward pass of the last prefill chunk, always whole, so that nothing of the
    slot's former owner is left; changed by `advance` and `write` in every decoding step.
    """

    def __init__(self, n_slots: int, audio_vocab_size: int, tokens: SpecialTokens, device: torch.device) -> None:
        self.tokens = tokens
        self.n_codes = audio_vocab_size + 1
        n_vq = tokens.n_vq

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(n_slots, *shape, dtype=dtype, device=device)

        self.prompt_len = zeros(dtype=torch.int32)
        self.audio_rows = zeros(dtype=torch.int32)
        self.flush_rows = zeros(dtype=torch.int32)
        self.last_audio_row = zeros(dtype=torch.int32)
        self.ended = zeros(dtype=torch.bool)  # the last row ended the request: what comes after it is nobody's
        self.codes = torch.full((n_slots, n_vq), tokens.pad_code, dtype=torch.int64, device=device)
        # History of the repetition penalty: codebook 0 has its own, the others share one. `codes` join it on `advance`.
        self.seen = zeros(2, self.n_codes, dtype=torch.bool)
        self.seed = zeros(dtype=torch.int64)
        self.temperature = zeros(2, dtype=torch.float32)  # text, audio
        self.top_p = torch.ones(n_slots, 2, dtype=torch.float32, device=device)
        self.top_k = torch.ones(n_slots, 2, dtype=torch.int32, device=device)
        self.penalty = torch.ones(n_slots, dtype=torch.float32, device=device)
        self._record = _record_of(self)

    def tensors(self) -> dict[str, Tensor]:
        """Every slot tensor, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def start(self, slots: Tensor, progresses: "list[SpeechProgress | None]") -> None:
        """Set up slots [B] (int64) for requests whose next row is the first, or the one after their accepted rows.

        A request that carries no speech (a health check) gets a harmless slot: greedy, outside audio.
        """
        records = np.zeros(len(progresses), dtype=self._record)
        for record, progress in zip(records, progresses, strict=True):
            _fill(record, progress, self.tokens)
        # One copy to the device for all fields of all slots.
        packed = to_device(records.view(np.uint8).reshape(len(records), -1), slots.device)
        for name, (field, first, *_) in (records.dtype.fields or {}).items():
            target = getattr(self, name)
            values = packed[:, first : first + field.itemsize].contiguous().view(target.dtype)
            target.index_copy_(0, slots, values.view(-1, *target.shape[1:]))

    def advance(self, slots: Tensor, text_ids: Tensor) -> None:
        """Move the slots [B] past the rows that they drew last, whose text ids [B] were accepted."""
        moves = slots != PADDING_SLOT
        audio_rows, flush_rows = advance(self.audio_rows[slots], self.flush_rows[slots], text_ids, self.tokens)
        self.audio_rows.index_copy_(0, slots, torch.where(moves, audio_rows, 0).to(torch.int32))
        self.flush_rows.index_copy_(0, slots, torch.where(moves, flush_rows, 0).to(torch.int32))
        self.ended.index_copy_(0, slots, ends(text_ids, self.tokens) & moves)
        history, codes = self.seen[slots], self.codes[slots]
        history[:, 0].scatter_(1, codes[:, :1], True)
        history[:, 1].scatter_(1, codes[:, 1:], True)
        self.seen.index_copy_(0, slots, history)

    def delay_state(self, slots: Tensor, seq_lens: Tensor) -> DelayState:
        """The delay state of slots [B] whose sequences hold seq_lens [B] rows."""
        return DelayState(
            audio_rows=self.audio_rows[slots],
            flush_rows=self.flush_rows[slots],
            row=(seq_lens - self.prompt_len[slots]).to(torch.int32),
            last_audio_row=self.last_audio_row[slots],
        )

    def idle(self, slots: Tensor) -> Tensor:
        """[B] bool: slots whose next row nobody reads: padding, and requests that ended under the overlap schedule."""
        return (slots == PADDING_SLOT) | self.ended[slots]

    def write(self, slots: Tensor, codes: Tensor) -> None:
        """Keep the codes [B, n_vq] just drawn: the next step embeds them."""
        self.codes.index_copy_(0, slots, codes)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array`; to a GPU from pinned memory, so that the host does not wait for the work queued there."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _record_of(state: SlotState) -> np.dtype:
    """Layout of one slot's values on the host: a field for every slot tensor."""
    fields = [(name, str(t.dtype).removeprefix("torch."), tuple(t.shape[1:])) for name, t in state.tensors().items()]
    return np.dtype(fields, align=True)


def _fill(record: np.void, progress: "SpeechProgress | None", tokens: SpecialTokens) -> None:
    """Write the values of one slot before its next row into `record`, which is all zeros."""
    record["codes"], record["top_p"], record["top_k"], record["penalty"] = tokens.pad_code, 1.0, 1, 1.0
    if progress is None:
        return
    request, options = progress.request, progress.request.options
    rows = progress.all_rows()
    record["prompt_len"] = len(request.prompt.rows)
    record["audio_rows"], record["flush_rows"] = replay(rows[:, 0], tokens)
    record["last_audio_row"] = request.last_audio_row
    record["ended"] = bool(progress.rows) and ends(int(rows[-1, 0]), tokens)
    record["codes"] = rows[-1, 1:]
    record["seen"][0, rows[:, 1]] = True
    record["seen"][1, rows[:, 2:]] = True
    record["seed"] = options.seed
    record["temperature"] = options.text.temperature, options.audio.temperature
    record["top_p"] = options.text.top_p, options.audio.top_p
    record["top_k"] = options.text.top_k, options.audio.top_k
    record["penalty"] = options.repetition_penalty
