"""How many requests run at a time where nobody says: as many as can all stream at once, on a GPU that has the memory.

A request that streams needs a slot of the codec, and slots may take a share of a GPU's memory. More running requests
make a step longer, but an arrival that finds no place waits for another one to end.
"""

from typing import Any

import torch

from sglang_moss.codec.config import CodecConfig
from sglang_moss.codec.state import CodecState, affordable_slots, codec_dtype
from sglang_moss.decode.stream_decoder import streams_with

_FEWEST = 128  # also where some streams then wait for a slot: whole answers need none for long
_MOST = 256  # steps grow with it
_MULTIPLE = 8  # as sizes of captured steps go
_SEEN = 0.97  # of the memory that the driver tells: a process sees somewhat less, and slots are counted by that


def running_requests(
    codec_config: dict[str, Any], dtype: str, codec_slots: int | None, memory_mib: float | None
) -> int:
    """The default of `--max-running-requests`.

    Args:
        codec_config: of the checkpoint.
        dtype: of the codec's decoder, as `--codec-dtype` names it.
        codec_slots: as many as are asked for; None: as many as are affordable.
        memory_mib: of the GPU, the smallest one if there are several; None: there is none.
    """
    if memory_mib is None:
        return _FEWEST
    decoder = CodecConfig.from_dict(codec_config).decoder
    slot_bytes = CodecState.slot_bytes(decoder, codec_dtype(dtype, torch.device("cuda")))
    slots = codec_slots or affordable_slots(int(_SEEN * memory_mib * 2**20), slot_bytes)
    return min(max(streams_with(slots) // _MULTIPLE * _MULTIPLE, _FEWEST), _MOST)
