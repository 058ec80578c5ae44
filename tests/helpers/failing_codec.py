"""The golden checkpoint with a codec that cannot decode one code: a failure of the codec alone, on demand."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from codec_models import checkpoint_tensors, config_dict
from golden_data import GOLDEN
from made_checkpoints import write_single

from sglang_moss.fuse import fuse

_TOO_LARGE = 3e38  # sums of it are no numbers; the nearest entry of a clip's frame it never is


def make_failing(folder: Path, code: int) -> Path:
    """A fused checkpoint whose codec fails where codebook 0 has this code."""
    tensors = {name: tensor.clone() for name, tensor in checkpoint_tensors().items()}
    tensors["quantizer.quantizers.0.codebook.weight"][code] = _TOO_LARGE
    write_single(folder / "codec", config_dict(), tensors)
    fuse(GOLDEN / "ttsd", folder / "codec", folder / "fails")
    return folder / "fails"


def own_code(frames: np.ndarray, after: int, others: Iterable[Sequence[Sequence[int]]]) -> int:
    """A code of codebook 0 that [T, n_vq] `frames` hold after so many of them and not before, and `others` never."""
    taken = {frame[0] for answer in others for frame in answer} | set(frames[:after, 0].tolist())
    return next(code for code in frames[after:, 0].tolist() if code not in taken)
