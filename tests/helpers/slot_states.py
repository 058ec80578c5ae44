"""Slot states with everything that a slot may hold, and logits that are exact in any order of adding."""

import torch
from torch import Tensor

from sglang_moss.config import SpecialTokens
from sglang_moss.step.slots import SlotState


def special_tokens_within(vocab_size: int, n_vq: int, n_codes: int) -> SpecialTokens:
    """Ids from the end of the vocabulary, out of their usual order; the pad code is the last of `n_codes`."""
    last = vocab_size - 1
    return SpecialTokens(
        im_start=last - 7,
        im_end=last - 2,
        text_pad=last - 6,
        audio_start=last - 5,
        audio_end=last - 4,
        user_slot=last - 3,
        gen_slot=last,
        delay_slot=last - 1,
        pad_code=n_codes - 1,
        n_vq=n_vq,
    )


def random_state(n_slots: int, n_codes: int, tokens: SpecialTokens, device: torch.device, seed: int = 0) -> SlotState:
    """Every stage of the delay pattern and every mix of settings, slot by slot; slot 0 as it always is."""
    generator = torch.Generator().manual_seed(seed)

    def pick(*values: float, shape: tuple[int, ...] = ()) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), (n_slots, *shape), generator=generator)]

    n_vq = tokens.n_vq
    state = SlotState(n_slots, n_codes - 1, tokens, device)
    in_audio = pick(True, True, False)
    audio_rows = pick(1, 2, n_vq, n_vq + 1, 3 * n_vq + 5) * in_audio
    flush_rows = torch.minimum(pick(0, 0, 0, 1, n_vq - 1, n_vq), audio_rows)
    values = {
        "prompt_len": pick(1, 9, 300),
        "audio_rows": audio_rows,
        "flush_rows": flush_rows,
        "last_audio_row": pick(0, 0, 0, 2, n_vq, 1000),
        "ended": pick(True, False, False) & ~in_audio,
        "codes": torch.randint(n_codes, (n_slots, n_vq), generator=generator),
        "seen": pick(True, False, shape=(2, n_codes)),
        "seed": torch.randint(2**63 - 1, (n_slots,), generator=generator),
        "temperature": pick(0.0, 0.7, 1.1, 100.0, shape=(2,)),
        "top_p": pick(0.05, 0.6, 0.9, 1.0, shape=(2,)),
        "top_k": pick(-1, 1, 2, 5, 50, 10**6, shape=(2,)),
        "penalty": pick(0.5, 1.0, 1.1, 2.0),
    }
    for name, value in values.items():
        getattr(state, name)[1:] = value[1:].to(device)
    return state


def tensors_of(state: SlotState) -> dict[str, Tensor]:
    """Copies of every slot tensor, by name."""
    return {name: value.clone() for name, value in state.tensors().items()}


def exact_values(*shape: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Eighths between -1 and 1: sums and dot products of a few hundred are exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-8, 9, shape, generator=generator) / 8).to(dtype).to(device)
