"""How long a workload's prompts are, and how much of one the server knows from another: for `engine_ceiling`."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from sglang_moss.config import special_tokens
from sglang_moss.request.prompt import build_prompt, choose_mode
from sglang_moss.request.script import read_script

from .workloads import FRAMES_PER_SECOND, RequestMaker


@dataclass(frozen=True)
class PromptRows:
    """Rows of a prompt, and how many of them another request with the same voices has in common with it."""

    n_rows: int
    n_shared: int


def prompt_rows(maker: RequestMaker, fused: Path) -> PromptRows:
    """Of two requests with made-up voices, from a fused checkpoint's tokenizer and configuration."""
    first, second = (made_up_rows(maker, fused, index) for index in range(2))
    length = min(len(first), len(second))
    differ = np.flatnonzero((first[:length] != second[:length]).any(axis=1))
    return PromptRows(n_rows=len(first), n_shared=int(differ[0]) if len(differ) else length)


def made_up_rows(maker: RequestMaker, fused: Path, index: int = 0) -> np.ndarray:
    """Rows [S, 1 + n_vq] int32 of request `index`, with made-up codes, the same for every request."""
    body = json.loads(maker.body(index))
    tokens = special_tokens(json.loads((fused / "config.json").read_text(encoding="utf-8")))
    tokenizer = AutoTokenizer.from_pretrained(fused)
    n_references = len(body["audio_data"])
    mode = choose_mode(body["sampling_params"].get("custom_params", {}).get("mode"), n_references)
    n_frames = round(maker.workload.reference_seconds * FRAMES_PER_SECOND)
    codes = np.random.default_rng(0).integers(tokens.pad_code, size=(n_references, n_frames, tokens.n_vq))
    clips = list(codes.astype(np.int32))
    script = read_script(body["text"])
    references = clips if mode.clones else None
    prompt_audio = np.concatenate(clips) if mode.continues else None
    return build_prompt(script, references, prompt_audio, tokenizer, tokens, mode).rows
