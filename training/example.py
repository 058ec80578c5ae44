"""One example: what a dataset holds, and what becomes rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Example:
    """Words, a target's codes, and those of its references, before any template.

    Source: a record of upstream's `prepare_data.py`, fields of `build_user_message` and `audio_codes`.
    """

    id: str  # of its record, unique in a dataset
    fields: Mapping[str, str | int]  # of the user turn, as they were written: text, instruction, tokens, language, ...
    codes: np.ndarray  # [T, n_vq] integers, T >= 1: the target's, not delayed
    references: (
        tuple[np.ndarray | None, ...] | None
    )  # [T_k, n_vq] of each speaker, speaker 1 first; None: no such field
    shown: np.ndarray | None = None  # [T, n_vq] what the model reads of the target where that is not what it learns
