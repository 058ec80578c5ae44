"""Flite's clustergen voices in this process, by its C library (2.2; Debian's libflite1, unpacked anywhere).

Voices `rms`, `slt` and `awb` are of the CMU Arctic recordings, 16 kHz.
"""

import ctypes
from functools import lru_cache
from pathlib import Path

import numpy as np

VOICES = ("rms", "slt", "awb")
_ORDER = ("libflite", "libflite_usenglish", "libflite_cmulex")  # each needs those before it


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class Flite:
    """One voice."""

    def __init__(self, voice: str, libraries: Path) -> None:
        """
        Args:
            voice: of `VOICES`.
            libraries: folder of libflite*.so.*.
        Raises:
            OSError: a library is missing.
        """
        library, of_voice = _load(libraries, voice)
        register = getattr(of_voice, f"register_cmu_us_{voice}")
        register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        self._voice = register(None)
        self._to_wave, self._delete = library.flite_text_to_wave, library.delete_wave
        self._to_wave.restype, self._to_wave.argtypes = ctypes.POINTER(_Wave), [ctypes.c_char_p, ctypes.c_void_p]
        self._delete.restype, self._delete.argtypes = None, [ctypes.POINTER(_Wave)]

    def __call__(self, text: str) -> tuple[np.ndarray, int]:
        """[L] float32 in -1 .. 1, and its rate in Hz."""
        wave = self._to_wave(text.encode("ascii"), self._voice)
        content = wave.contents
        samples = np.ctypeslib.as_array(content.samples, (content.num_samples,)).astype(np.float32) / 32768
        rate = content.sample_rate
        self._delete(wave)
        return samples, rate


@lru_cache
def _load(libraries: Path, voice: str) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    def opened(name: str) -> ctypes.CDLL:
        found = next(libraries.glob(f"{name}.so.*"), None)
        if found is None:
            raise FileNotFoundError(f"{libraries} has no {name}: install Flite (Debian: apt-get install flite)")
        return ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)

    if next(libraries.glob("libasound.so.*"), None):  # libflite names it; nothing is played
        opened("libasound")
    library, *_ = [opened(name) for name in _ORDER]
    library.flite_init()
    return library, opened(f"libflite_cmu_us_{voice}")
