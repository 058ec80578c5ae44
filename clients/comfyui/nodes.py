"""Two nodes: a voice for a speaker, and speech in these voices.

    Load Audio -> MOSS-TTSD Voice (S1) -> MOSS-TTSD Voice (S2) -> MOSS-TTSD Speech -> Save Audio

ComfyUI's AUDIO is {"waveform": [B, C, L] float32 within -1..1, "sample_rate": Hz}. The server is asked through
`sglang_moss.clients`; of ComfyUI only what stops a run and draws its bar is used, where it is there.
"""

import importlib
import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import torch

from sglang_moss.audio.wav import wav_bytes
from sglang_moss.clients import MossClient, Reference  # pyright: ignore[reportMissingImports] (installed from here)

DEFAULT_URL = "http://127.0.0.1:30000"
MAX_SPEAKERS = 5
_SEED_LIMIT = 2**53  # exclusive: what the browser can count to
_FULL_SCALE = 32_767
_VOICES = "MOSS_VOICES"  # {1: name or clip, ...}: voices by speaker, on their way from node to node
_CATEGORY = "audio/MOSS-TTSD"


class MossVoice:
    """Gives a speaker a voice: one that the server keeps, or a clip."""

    CATEGORY = _CATEGORY
    FUNCTION = "cast"
    RETURN_TYPES = (_VOICES,)
    RETURN_NAMES = ("voices",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        name = "A voice that the server keeps (its page lists them); leave it empty with a clip."
        transcript = "What is said in the clip; with it the voice is continued, without it only imitated."
        return {
            "required": {"speaker": ("INT", {"default": 1, "min": 1, "max": MAX_SPEAKERS})},
            "optional": {
                "name": ("STRING", {"default": "", "tooltip": name}),
                "clip": ("AUDIO",),
                "transcript": ("STRING", {"default": "", "multiline": True, "tooltip": transcript}),
                "voices": (_VOICES, {"tooltip": "Voices of other speakers."}),
            },
        }

    def cast(
        self,
        speaker: int,
        name: str = "",
        clip: dict[str, Any] | None = None,
        transcript: str = "",
        voices: dict[int, str | Reference] | None = None,
    ) -> tuple[dict[int, str | Reference]]:
        """These voices and one more.

        Raises:
            ValueError: neither a name nor a clip, both, or a speaker with a voice already.
        """
        others = dict(voices or {})
        if bool(name.strip()) == (clip is not None):
            raise ValueError("MOSS-TTSD Voice: give either the name of a stored voice or a clip")
        if speaker in others:
            raise ValueError(f"MOSS-TTSD Voice: speaker {speaker} has a voice already; choose another number")
        voice = name.strip() if clip is None else Reference(clip_of(clip), transcript.strip() or None)
        return ({**others, speaker: voice},)


class MossSpeech:
    """Speaks a script; a run that is stopped in ComfyUI stops on the server too."""

    CATEGORY = _CATEGORY
    FUNCTION = "speak"
    RETURN_TYPES = ("AUDIO",)
    RETURN_NAMES = ("audio",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        script = "[S1] Did you hear that? [S2] No. What was it?"
        seconds = "The speech is cut there; 0 leaves its end to the model."
        temperature = "How far it may stray from the likeliest sound; -1 is the model's own default."
        normalize = "Rewrite the script the way the model was trained to read it."
        return {
            "required": {
                "script": ("STRING", {"default": script, "multiline": True}),
                "seed": ("INT", {"default": 0, "min": 0, "max": _SEED_LIMIT - 1, "control_after_generate": True}),
                "server": ("STRING", {"default": os.environ.get("MOSS_URL", DEFAULT_URL)}),
            },
            "optional": {
                "voices": (_VOICES,),
                "max_seconds": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 7200.0, "tooltip": seconds}),
                "temperature": (
                    "FLOAT",
                    {"default": -1.0, "min": -1.0, "max": 4.0, "step": 0.05, "tooltip": temperature},
                ),
                "normalize": ("BOOLEAN", {"default": True, "tooltip": normalize}),
            },
        }

    def speak(
        self,
        script: str,
        seed: int,
        server: str,
        voices: dict[int, str | Reference] | None = None,
        max_seconds: float = 0.0,
        temperature: float = -1.0,
        normalize: bool = True,
    ) -> tuple[dict[str, Any]]:
        """AUDIO of the script: [1, 1, L].

        Raises:
            ClientError: the server refuses or fails, or is not there; ComfyUI shows the sentence.
            RuntimeError: the server answers without a sound.
        """
        look = _stop_check()
        pieces: list[bytes] = []
        sample_rate = 0
        # The key comes from the environment: what a node holds is saved with every workflow and picture.
        with MossClient(server, api_key=os.environ.get("MOSS_API_KEY") or None) as client:
            chunks = client.speech(
                script,
                voices or {},
                seed=seed,
                max_seconds=max_seconds or None,
                temperature=temperature if temperature >= 0 else None,
                normalize=normalize,
            )
            with closing(chunks):
                for chunk in chunks:
                    look()
                    pieces.append(chunk.pcm)
                    sample_rate = sample_rate or chunk.sample_rate
        samples = np.frombuffer(b"".join(pieces), "<i2")
        if not len(samples):
            raise RuntimeError("the server answered without a sound")
        waveform = torch.from_numpy(samples.astype(np.float32) / (_FULL_SCALE + 1))
        return ({"waveform": waveform[None, None], "sample_rate": sample_rate},)


def clip_of(audio: dict[str, Any]) -> bytes:
    """A WAV file, mono, of the first clip of AUDIO."""
    mono = audio["waveform"][0].float().mean(dim=0).clamp(-1, 1).cpu().numpy()  # [L]
    return wav_bytes(np.rint(mono * _FULL_SCALE).astype(np.int16), int(audio["sample_rate"]))


def _stop_check() -> Callable[[], None]:
    """What raises once the user has stopped the run; nothing outside of ComfyUI."""
    try:
        management: Any = importlib.import_module("comfy.model_management")
    except ModuleNotFoundError:
        return lambda: None
    return management.throw_exception_if_processing_interrupted
