"""Delay pattern: codebook k is written k rows late, so that a row can be predicted from finished rows alone.

               k=0   k=1   k=2        n_vq = 3 codebooks, T = 2 frames: S = T + n_vq - 1 = 4 rows
    row 0      a0     .     .         a, b: the frames, first and second; the digit is the codebook
    row 1      b0    a1     .         . : pad_code
    row 2       .    b1    a2
    row 3       .     .    b2

Row t + k holds code k of frame t: a frame lies on a diagonal, and is whole once the diagonal reaches the last codebook.

Source: MOSS-TTS, delay pattern of the processor (in) and of the generated rows (out).
"""

import numpy as np


def apply_delay(codes: np.ndarray, pad_code: int) -> np.ndarray:
    """Lay frames out as rows.

    Args:
        codes: [T, n_vq] integer codes; T may be 0.
        pad_code: what fills the corners.
    Returns:
        [T + n_vq - 1, n_vq] codes of the same dtype.
    """
    n_frames, n_vq = codes.shape
    rows = np.full((n_frames + n_vq - 1, n_vq), pad_code, dtype=codes.dtype)
    step, size = rows.strides
    diagonals = np.ndarray((n_frames, n_vq), rows.dtype, rows, strides=(step, step + size))  # [t, k] is [t + k, k]
    diagonals[:] = codes
    return rows


def remove_delay(rows: np.ndarray) -> np.ndarray:
    """Gather the frames that are whole: the inverse of `apply_delay`.

    Args:
        rows: [S, n_vq] integer codes, without the text column.
    Returns:
        [S - n_vq + 1, n_vq] codes of the same dtype.
    Raises:
        ValueError: fewer than n_vq - 1 rows, so they are not the delay pattern of anything.
    """
    n_rows, n_vq = rows.shape
    n_frames = n_rows - (n_vq - 1)
    if n_frames < 0:
        raise ValueError(f"a delay pattern of {n_vq} codebooks has at least {n_vq - 1} rows, got {n_rows}")
    return np.stack([rows[k : k + n_frames, k] for k in range(n_vq)], axis=1)
