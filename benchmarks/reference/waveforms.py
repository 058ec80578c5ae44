"""Reading back what the server sends."""

import base64
import io

import numpy as np
import soundfile


def pcm_of_wav(wav_base64: str) -> np.ndarray:
    """[L] float32 samples of a base64 WAV, full scale 1."""
    samples, _rate = soundfile.read(io.BytesIO(base64.b64decode(wav_base64)), dtype="float32")
    return samples
