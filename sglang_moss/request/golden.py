"""`python -m sglang_moss.request.golden DIR --serving-golden DIR`: check the family's prompts, a line a case.

    hf.json, hf.npz      fields of the user turn to words and rows, by upstream's processor: both must be equal
    served_base.json     request texts to words, by the served fork: which directives are taken, what is left as text

The fork normalises every text in a way of its own, so of a text the letters and digits are compared. Where it is known
to differ from upstream's processor, which goes first, the line says so.

Exit status: 0 everything agrees, 1 something differs, 2 wrong usage.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Qwen2Tokenizer

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.errors import BadRequest
from sglang_moss.request.golden_report import Case
from sglang_moss.request.profile import PROFILES, TTS, Profile
from sglang_moss.request.prompt import (
    SpeechPrompt,
    Tokenizer,
    build_prompt,
    choose_mode,
    prompt_text,
    special_strings,
)
from sglang_moss.request.script import Script, check_script, read_script
from sglang_moss.request.text import AUDIO_PLACEHOLDER

_UPSTREAMS_PLACEHOLDER = "<|audio|>"
_TEXT = re.compile(r"(?<=- Text:\n).*(?=\n</user_inst>\Z)", re.DOTALL)
_LANGUAGE = "${language:"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks with `argv` (default: the command line); returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sglang_moss.request.golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, help="of hf.json, hf.npz, served_base.json")
    parser.add_argument("--serving-golden", type=Path, required=True, help="holds the checkpoint they were made with")
    parser.add_argument("--checkpoint", help="its name there; by default what hf.json says")
    args = parser.parse_args(argv)
    n_cases = n_different = 0
    for case in cases(args.directory, args.serving_golden, args.checkpoint):
        print(case, flush=True)
        n_cases += 1
        n_different += bool(case.differences)
    print(f"{n_cases} cases, {n_different} differ")
    return 1 if n_different or not n_cases else 0


def cases(directory: Path, serving_golden: Path, checkpoint: str | None = None) -> Iterator[Case]:
    """Everything that a golden directory says."""
    stored = json.loads((directory / "hf.json").read_text(encoding="utf-8"))
    model_path = serving_golden / (checkpoint or stored["checkpoint"])
    yield from check_processor(directory, stored, model_path)
    if (directory / "served_base.json").is_file():
        yield from check_served(json.loads((directory / "served_base.json").read_text(encoding="utf-8")))


def check_processor(directory: Path, stored: dict[str, Any], model_path: Path) -> Iterator[Case]:
    """Words and rows of fields, by upstream's processor."""
    config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
    tokens, tokenizer = special_tokens(config), Qwen2Tokenizer.from_pretrained(str(model_path))
    sizes = Case("sizes of the checkpoint")
    for name, ours in (("n_vq", tokens.n_vq), ("audio_vocab_size", config["audio_vocab_size"])):
        sizes.equal(name, np.array(ours), np.array(stored[name]))
    yield sizes
    if sizes.differences:
        return
    with np.load(directory / "hf.npz") as arrays:
        for key, fact in stored["cases"].items():
            case = Case(f"hf {key}")
            profile = PROFILES.get(key.partition(".")[0], TTS)
            script = script_of(fact["fields"], profile)
            try:
                check_script(script, special_strings(tokenizer), profile=profile)
            except BadRequest as error:
                case.notes.append(f"a server refuses it: {error}")
            try:
                prompt = _prompt(script, fact, arrays, tokenizer, tokens, profile)
            except (BadRequest, KeyError) as error:
                case.differences.append(f"cannot be made: {error}")
                yield case
                continue
            references = fact["fields"].get("reference")
            there = None if references is None else [reference is not None for reference in references]
            words = prompt_text(script, there, profile).replace(AUDIO_PLACEHOLDER, _UPSTREAMS_PLACEHOLDER)
            _same_words(case, words, fact["content"])
            case.equal("rows", prompt.rows, arrays[f"{key}.input_ids"])
            yield case


def check_served(stored: dict[str, Any]) -> Iterator[Case]:
    """Words of request texts, by the served fork."""
    for key, theirs in stored["prompts"].items():
        n_references, _, text = key.partition("|")
        case = Case(f"served {text!r}" + (f" with {n_references} references" if n_references != "0" else ""))
        try:
            script = read_script(text, TTS)
        except BadRequest as error:
            case.differences.append(f"refused: {error}")
            yield case
            continue
        if script.language is not None and _LANGUAGE in text:
            case.notes.append("a language here, spoken there")
            text_there = f"{_LANGUAGE}{script.language}}}{script.text}"
            script = replace(script, language=None, text=text_there)
        ours = prompt_text(script, int(n_references) or None, TTS)
        _same_words(case, _TEXT.sub(_letters, ours), _TEXT.sub(_letters, theirs))
        yield case


def script_of(fields: dict[str, Any], profile: Profile) -> Script:
    """Fields as upstream's processor passes them on: it always normalises the text, and nothing else."""
    text = fields.get("text")
    others = {name: value for name, value in fields.items() if name not in ("text", "reference")}
    return Script(text=None if text is None else profile.normalize(text), **others)


def _prompt(
    script: Script, fact: dict[str, Any], arrays: Any, tokenizer: Tokenizer, tokens: SpecialTokens, profile: Profile
) -> SpeechPrompt:
    references = fact["fields"].get("reference")
    clips = None if references is None else [None if name is None else arrays[name] for name in references]
    prompt_audio = None if fact["assistant"] is None else arrays[fact["assistant"]]
    if prompt_audio is not None:
        name = "voice_clone_and_continuation" if clips else "continuation"
    else:
        name = "voice_clone" if clips else "generation"
    n_references = len(clips or ()) or int(prompt_audio is not None)
    mode = choose_mode(name, n_references, profile)
    return build_prompt(script, clips, prompt_audio, tokenizer, tokens, mode, profile=profile)


def _letters(found: re.Match[str]) -> str:
    return "".join(filter(str.isalnum, found.group()))


def _same_words(case: Case, ours: str, theirs: str) -> None:
    if ours != theirs:
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
        at = sum(1 for _ in same)
        case.differences.append(f"words: {ours[at : at + 40]!r} at {at}, stored {theirs[at : at + 40]!r}")


if __name__ == "__main__":
    sys.exit(main())
