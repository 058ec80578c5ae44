"""The golden cases as requests: language-model prompts as rows, `/generate` bodies with their clips put in."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.decode.frames import FrameReader
from sglang_moss.request.prompt import SpeechPrompt

from .rows_engine import prompt_of_rows

_GREEDY = {"temperature": 0.0, "top_k": -1, "top_p": 1.0}


@dataclass(frozen=True)
class GreedyCase:
    """One greedy generation of the reference, up to its first <audio_end>, where a request of ours ends."""

    key: str
    prompt: SpeechPrompt
    settings: dict[str, Any]  # `max_new_tokens` counts rows
    all_rows: np.ndarray  # [S, 1 + n_vq]: the prompt's rows and the generated ones
    text_ids: list[int]  # of the generated rows
    frames: np.ndarray  # [T, n_vq]; T = 0: nothing to decode
    margin: float  # how far the closest decision was from a tie

    @property
    def has_penalty(self) -> bool:
        return self.settings["repetition_penalty"] != 1.0


class GoldenCases:
    """Reads the golden folder; the cases belong to one of its language models."""

    def __init__(self, golden: Path, language_model: str = "ttsd") -> None:
        self._cases = golden / "cases"
        self.tokens: SpecialTokens = special_tokens(json.loads((golden / language_model / "config.json").read_text()))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self._cases / f"{name}.npz") as arrays:
            return dict(arrays)

    def table(self, name: str) -> Any:
        return json.loads((self._cases / f"{name}.json").read_text(encoding="utf-8"))

    def greedy(self) -> list[GreedyCase]:
        """Every case of `lm/generate` and `lm/repetition`."""
        generate, repetition = self.arrays("lm/generate"), self.arrays("lm/repetition")
        cases = [self._greedy(case, generate) for case in self.table("lm/generate")["cases"]]
        return cases + [self._greedy(case, repetition) for case in self.table("lm/repetition")]

    def greedy_nvq32(self) -> list[GreedyCase]:
        """Every case of `lm/nvq32`, for the language model `ttsd_nvq32`."""
        arrays = self.arrays("lm/nvq32")
        return [self._greedy(case, arrays) for case in self.table("lm/nvq32")]

    def _greedy(self, case: dict[str, Any], arrays: dict[str, np.ndarray]) -> GreedyCase:
        rows = arrays[f"{case['key']}.rows"][case["start_length"] :]
        ends = np.flatnonzero(np.isin(rows[:, 0], (self.tokens.audio_end, self.tokens.im_end)))
        rows = rows[: ends[0] + 1] if len(ends) else rows
        return GreedyCase(
            key=case["key"],
            prompt=prompt_of_rows(arrays[f"{case['key']}.input_ids"], self.tokens),
            settings={
                **_GREEDY,
                "repetition_penalty": case.get("audio_repetition_penalty", 1.0),
                "max_new_tokens": case["max_new_tokens"],
            },
            all_rows=np.concatenate([arrays[f"{case['key']}.input_ids"], rows]),
            text_ids=rows[:, 0].tolist(),
            frames=FrameReader(self.tokens, continues_prompt=case["start_length"] > 0).read(rows),
            margin=case["min_decision_margin"],
        )

    def served_keys(self) -> list[str]:
        return [case["key"] for case in self.table("e2e/e2e")["served"]]

    def comparable_keys(self) -> list[str]:
        """Served cases whose codes ours must equal: those with audio, and without a row that our masks forbid.

        The served path of the reference masks less than its Hugging Face path, which ours follows: no delay slot in the
        first row, no <|im_end|> in the first n_vq + 1.
        """
        arrays, keys = self.arrays("e2e/e2e"), []
        for key in self.served_keys():
            text_ids = arrays[f"{key}.output_rows"][:, 0]
            ends_early = (text_ids[: self.tokens.n_vq + 1] == self.tokens.im_end).any()
            if f"{key}.generated_codes" in arrays and text_ids[0] != self.tokens.delay_slot and not ends_early:
                keys.append(key)
        return keys

    def served_request(self, key: str) -> dict[str, Any]:
        """A `/generate` body; the reference did not apply a repetition penalty on this path."""
        body = json.loads((self._cases / "e2e" / f"{key}.request.json").read_text(encoding="utf-8"))
        if "audio_data" in body:
            body["audio_data"] = [self._clip(source) for source in body["audio_data"]]
        body["sampling_params"]["repetition_penalty"] = 1.0
        return body

    def _clip(self, source: str) -> str:
        if not source.startswith("@audio/"):
            return source
        data = (self._cases / "audio" / source.removeprefix("@audio/")).read_bytes()
        return "data:audio/wav;base64," + base64.b64encode(data).decode()
