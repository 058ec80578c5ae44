"""How much GPU memory the codec's streams may take."""

import torch

_SHARE = 0.1  # of the device's memory, for the slots of running streams
_SLOTS_WITHOUT_GPU = 16
_MIN_SLOTS = 2


def stream_slots(asked: int | None, n_requests: int, slot_bytes: int, device: torch.device) -> int:
    """Slots for decoding streams: as many as `asked`, else one for each of `n_requests`, within a tenth of the memory.

    Args:
        slot_bytes: what one slot costs (`Codec.state_bytes_per_slot`).
    """
    if asked is not None:
        return asked
    if device.type != "cuda":
        return max(_MIN_SLOTS, min(n_requests, _SLOTS_WITHOUT_GPU))
    total = torch.cuda.get_device_properties(device).total_memory
    return max(_MIN_SLOTS, min(n_requests, int(_SHARE * total) // slot_bytes))


def codec_dtype(name: str, device: torch.device) -> torch.dtype:
    """The decoder's dtype for `--codec-dtype`; "auto" is float16 on a GPU, else float32."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)
