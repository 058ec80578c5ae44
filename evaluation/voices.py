"""Whose voice a turn has: similarity to the references, after the published dialogue evaluation.

    turn -> its stretch of the clip -> embedding --+
    reference of each speaker  -> embedding -------+-> cosines -> SIM: that of the right speaker, mean over turns
                                                               -> ACC: share of turns whose largest is the right one

ACC is over turns whose speaker has a reference beside at least one other speaker's; SIM over all that have one. A clip
that holds all speakers is cut by its transcript first.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sglang_moss.request.turns import turns_of

from .aligners import Aligner, spans_of
from .clips import Span, read_clip
from .dataset import Item
from .embedders import Embedder
from .errors import CannotJudge
from .recognisers import Recogniser
from .results import TurnScore


class References:
    """Voices of the speakers of items, each clip read and embedded once."""

    def __init__(self, embedder: Embedder, aligner: Aligner, recogniser: Recogniser) -> None:
        self._embedder = embedder
        self._aligner = aligner
        self._recogniser = recogniser
        self._known: dict[tuple[str, str], dict[int, np.ndarray]] = {}

    def of(self, item: Item) -> tuple[dict[int, np.ndarray], list[str]]:
        """Embedding by speaker; and notes on references that could not be used."""
        voices: dict[int, np.ndarray] = {}
        notes = []
        asked: list[tuple[int, Path | str, str | None]] = [(k, clip, None) for k, clip in item.clips.items()]
        if item.shared_clip is not None:
            asked.append((0, item.shared_clip, item.shared_text))
        for speaker, clip, text in asked:
            if isinstance(clip, str):
                notes.append("a reference at a URL is not fetched by the judge; download it to have its voice compared")
                continue
            key = (str(clip), text or "")
            try:
                if key not in self._known:
                    self._known[key] = self._embedded(item, clip, text)
            except (CannotJudge, OSError) as error:
                notes.append(f"no voice of {clip.name}: {error}")
                continue
            voices |= {speaker or k: voice for k, voice in self._known[key].items()}
        return voices, notes

    def _embedded(self, item: Item, clip: Path, text: str | None) -> dict[int, np.ndarray]:
        samples, _ = read_clip(clip)
        if text is None:
            return {0: self._embedder.embed(samples)}
        turns = [turn for turn in turns_of(text) if turn.speaker]
        heard = self._recogniser.hear(samples, item.language)
        spans = spans_of(self._aligner, samples, turns, item.language, heard)
        speech: dict[int, list[np.ndarray]] = {}
        for turn, span in zip(turns, spans, strict=True):
            speech.setdefault(turn.speaker or 1, []).append(span.of(samples))
        return {k: self._embedder.embed(np.concatenate(parts)) for k, parts in speech.items()}


def score_turns(
    item: Item, spans: Sequence[Span], samples: np.ndarray, voices: dict[int, np.ndarray], embedder: Embedder | None
) -> list[TurnScore]:
    """Similarity of each turn to each speaker who takes part; none where a turn is too short to tell."""
    taking_part = {turn.speaker for turn in item.turns}
    voices = {k: voice for k, voice in voices.items() if k in taking_part}
    scores = []
    for turn, span in zip(item.turns, spans, strict=True):
        similarities: dict[int, float] = {}
        if voices and embedder is not None and span.seconds >= embedder.least_s:
            heard = embedder.embed(span.of(samples))
            similarities = {k: float(heard @ voice) for k, voice in sorted(voices.items())}
        scores.append(
            TurnScore(
                speaker=turn.speaker or 1,
                text=turn.words,
                start_s=span.start_s,
                end_s=span.end_s,
                similarities=similarities,
            )
        )
    return scores
