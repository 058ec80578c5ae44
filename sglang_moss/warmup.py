"""A first request before the server says that it is ready: it compiles kernels and proves the whole path."""

from typing import Any

_TEXT = "[S1] One, two, three."
_FRAMES = 8


async def speak_once(_disaggregation_mode: str, tokenizer_manager: Any) -> None:
    """Let the server speak a few frames.

    Raises:
        RuntimeError: the answer holds no audio; the server must not start.
    """
    from sglang.srt.managers.io_struct import GenerateReqInput

    request = GenerateReqInput(
        text=_TEXT, sampling_params={"max_new_tokens": _FRAMES, "ignore_eos": True, "sampling_seed": 0}
    )
    answer = await anext(tokenizer_manager.generate_request(request))
    n_frames = answer["meta_info"].get("audio_frames")
    if n_frames != _FRAMES:
        raise RuntimeError(f"the warm-up request gave {n_frames} frames of audio, expected {_FRAMES}")
