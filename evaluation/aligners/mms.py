"""Forced alignment by CTC with torchaudio's MMS model, as the published evaluation segments its dialogues.

    speech -> emissions [frames, labels], in windows of 30 s -> forced_align with the script's letters -> borders

A border is the middle between the last letter of a turn and the first of the next. Letters are those of the model's
alphabet: a to z and the apostrophe. Chinese is written in them by `uroman`, if that is installed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sglang_moss.request.turns import Turn

from ..clips import RATE
from ..errors import CannotJudge, load
from ..recognisers import Heard
from ..spoken_words import tokens_of

_WINDOW_S, _CONTEXT_S = 30, 2  # seconds of speech at a time, and what is heard on both sides of them
_STRIDE = 320  # samples for one frame of emissions
_BLANK = 0
_UROMAN = "pip install uroman"


class ForcedAlignment:
    """The aligner `mms`."""

    def __init__(self, model: str | None, device: str) -> None:
        del model
        import torchaudio

        bundle: Any = torchaudio.pipelines.MMS_FA
        try:
            network = bundle.get_model(with_star=False).to(device).eval()
        except OSError as error:
            raise CannotJudge(
                f"the aligner mms cannot load its weights: {error}; torch's hub keeps them in its "
                "folder of checkpoints once they have been downloaded"
            ) from error
        self._labels = {label: i for i, label in enumerate(bundle.get_labels(star=None))}
        self._emit = lambda samples: emissions(network, samples, device)
        self.versions = {"torchaudio": torchaudio.__version__}

    def borders(self, samples: np.ndarray, turns: Sequence[Turn], language: str, heard: Heard) -> list[float]:
        del heard
        letters = [[self._labels[c] for c in letters_of(turn.words, language) if c in self._labels] for turn in turns]
        return aligned_borders(self._emit(samples), letters, len(samples) / RATE)


def aligned_borders(emission: Any, letters: Sequence[Sequence[int]], seconds: float) -> list[float]:
    """Borders between turns from emissions.

    Args:
        emission: [frames, labels] log-probabilities, label 0 is the blank.
        letters: labels of each turn.
        seconds: of the clip.
    Raises:
        CannotJudge: more letters than frames: nobody speaks that fast.
    """
    import torch
    from torchaudio.functional import forced_align, merge_tokens

    targets = [label for turn in letters for label in turn]
    if not targets:
        raise CannotJudge("the aligner mms finds no letter of its alphabet in the script")
    try:
        path, scores = forced_align(emission[None], torch.tensor([targets], dtype=torch.int32), blank=_BLANK)
    except RuntimeError as error:
        raise CannotJudge(f"the script has {len(targets)} letters, too many for {seconds:.1f} s of speech") from error
    found = merge_tokens(path[0], scores[0], blank=_BLANK)
    frame_s = seconds / len(emission)
    ends = np.cumsum([len(turn) for turn in letters])[:-1]
    borders = []
    for end in ends:
        last = found[end - 1].end if end else 0
        following = found[end].start if end < len(found) else len(emission)
        borders.append(float((last + following) / 2 * frame_s))
    return borders


def emissions(network: Callable[[Any], tuple[Any, Any]], samples: np.ndarray, device: str) -> Any:
    """[frames, labels] float32 log-probabilities on the CPU: minutes of speech in one pass would fill the memory."""
    import torch

    waveform = torch.from_numpy(samples.astype(np.float32))
    window, context = _WINDOW_S * RATE, _CONTEXT_S * RATE
    parts = []
    for begin in range(0, len(waveform), window):
        first = max(0, begin - context)
        piece = waveform[first : begin + window + context]
        if begin and begin + _STRIDE > len(waveform):
            break  # less than a frame is left
        with torch.inference_mode():
            emission, _ = network(torch.nn.functional.layer_norm(piece, piece.shape)[None].to(device))
        skip = (begin - first) // _STRIDE
        is_last = begin + window >= len(waveform)
        parts.append(emission[0, skip : None if is_last else skip + window // _STRIDE].float().cpu())
    return torch.log_softmax(torch.cat(parts), dim=-1)


def letters_of(words: str, language: str) -> str:
    """A turn in Latin letters, lower case."""
    if language == "zh":
        words = load("uroman", "Chinese with the aligner mms", _UROMAN).Uroman().romanize_string(words)
    return "".join(tokens_of(words, "en"))
