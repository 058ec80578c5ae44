"""`moss-ttsd check MODEL_DIR`: whether a published checkpoint is what this project takes it for, a line a finding.

Nothing in the directory is run: its Python files are read, its weights' headers at most. What is read from every
checkpoint (`n_vq`, ids, context) is only told where it differs from what the published one is said to have.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from sglang_moss.request.profile import Profile

from .checkpoint import INDEX_NAME, SINGLE_NAME, read_weights
from .compatibility import LM_ARCHITECTURE
from .configs import CONFIG_NAME, REQUIRED_TOKENIZER_FILES
from .errors import FuseError
from .evidence import Evidence, find_evidence
from .json_file import JsonFile, read_json

Verdict = Literal["ok", "note", "wrong"]

_TOKENS = {  # field of config.json: the token that it is the id of
    "im_start_token_id": "<|im_start|>",
    "im_end_token_id": "<|im_end|>",
    "pad_token_id": "<|endoftext|>",
    "audio_start_token_id": "<|audio_start|>",
    "audio_end_token_id": "<|audio_end|>",
    "audio_user_slot_token_id": "<|audio_user_slot|>",
    "audio_assistant_gen_slot_token_id": "<|audio_assistant_gen_slot|>",
    "audio_assistant_delay_slot_token_id": "<|audio_assistant_delay_slot|>",
}
_CHAT = "<|im_start|>user\nwords<|im_end|>\n<|im_start|>assistant\n"  # what `request.prompt` writes around a user turn
_PUBLISHED: dict[str, dict[str, int]] = {  # as far as their makers have said it
    "ttsd": {"n_vq": 16, "hidden_size": 4096, "num_hidden_layers": 36},
    "tts": {"n_vq": 32, "hidden_size": 4096, "num_hidden_layers": 36},
    "voice": {"hidden_size": 2048, "num_hidden_layers": 28},
    "sound": {"hidden_size": 4096, "num_hidden_layers": 36},
}
_OF_ALL = {"audio_vocab_size": 1024, "sampling_rate": 24_000, "max_position_embeddings": 40_960}
_SIZES = (
    "n_vq",
    "audio_vocab_size",
    "sampling_rate",
    "language_config.hidden_size",
    "language_config.num_hidden_layers",
    "language_config.max_position_embeddings",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:<6} {self.about:<23} {self.text}"


def check_model(model_path: str | PathLike[str], profile: str | None = None) -> Iterator[Finding]:
    """What a model directory is, against what is assumed of it; the last finding says whether it can be served.

    Args:
        model_path: directory of a published language model; its weights need not be there.
        profile: that it is said to have; None: by evidence.
    Raises:
        FuseError: there is no config.json to read.
    """
    lm = read_json(Path(model_path).expanduser() / CONFIG_NAME)
    found: list[Finding] = []
    for finding in _findings(lm, profile):
        found.append(finding)
        yield finding
    names = [finding.text.split()[0] for finding in found if (finding.about, finding.verdict) == ("profile", "ok")]
    n_wrong = sum(finding.verdict == "wrong" for finding in found)
    if n_wrong or not names:
        yield Finding("wrong", "verdict", f"cannot be served: {max(n_wrong, 1)} findings above say why")
    else:
        yield Finding("ok", "verdict", f"can be served as {names[0]}: moss-ttsd fuse --model-path {model_path} ...")


def _findings(lm: JsonFile, asked: str | None) -> Iterator[Finding]:
    found = lm.content.get("architectures")
    is_right = found == [LM_ARCHITECTURE]
    yield Finding("ok" if is_right else "wrong", "architecture", f"{found}, needed is {LM_ARCHITECTURE}")
    if not is_right:
        return
    evidence: Evidence | None = None
    try:
        evidence = find_evidence(lm, asked)
    except FuseError as error:
        yield Finding("wrong", "profile", str(error))
    if evidence is not None:
        yield Finding("ok", "profile", f"{evidence.profile.name} ({evidence.profile.model}), {evidence.why}")
        yield _template(evidence)
    yield from _sizes(lm, None if evidence is None else evidence.profile)
    yield from _tokenizer(lm)
    yield from _weights(lm)


def _template(evidence: Evidence) -> Finding:
    template = evidence.template
    if template is None:
        return Finding("note", "template", "no processing_*.py with a template in it: nothing to compare with")
    if difference := template.difference(evidence.profile.template):
        return Finding("wrong", "template", difference)
    return Finding("ok", "template", f"{template.path.name} has the fields {', '.join(template.labels)}, as here")


def _sizes(lm: JsonFile, profile: Profile | None) -> Iterator[Finding]:
    """Sizes, and what the published checkpoint is said to have."""
    expected = _OF_ALL | ({} if profile is None else _PUBLISHED.get(profile.name, {}))
    for field in _SIZES:
        name = field.rpartition(".")[2]
        try:
            value = lm.integer(field)
        except FuseError as error:
            yield Finding("wrong", name, str(error))
            continue
        said = expected.get(name)
        differs = said is not None and said != value
        yield Finding("note" if differs else "ok", name, f"{value}" + (f", published is {said}" if differs else ""))
    pad, n_codes = lm.content.get("audio_pad_code"), lm.content.get("audio_vocab_size")
    if pad != n_codes:
        yield Finding("wrong", "pad code", f"audio_pad_code is {pad}, needed is the one after the codes, {n_codes}")
    if "dtype" not in lm.content:
        yield Finding("wrong", "dtype", f"{lm.path.name} has no field dtype, which fusing needs: name it")


def _tokenizer(lm: JsonFile) -> Iterator[Finding]:
    directory = lm.path.parent
    missing = [name for name in REQUIRED_TOKENIZER_FILES if not (directory / name).is_file()]
    if missing:
        yield Finding("wrong", "tokenizer", f"{', '.join(missing)} is missing: download the whole checkpoint")
        return
    try:
        tokens = {t["id"]: t["content"] for t in read_json(directory / "tokenizer.json").content["added_tokens"]}
    except (FuseError, KeyError, TypeError) as error:
        yield Finding("wrong", "tokenizer", f"tokenizer.json has no added tokens that can be read ({error})")
        return
    n_ids, others = 0, []
    for field, token in _TOKENS.items():
        try:
            found = tokens.get(lm.integer(field))
        except FuseError as error:
            yield Finding("wrong", "ids", str(error))
            continue
        if found is None:
            yield Finding("wrong", "ids", f"{field} is {lm.content[field]}, which is no special token of its tokenizer")
            continue
        n_ids += 1
        others += [] if found == token else [f"{field} is {found}, expected {token}"]
    ids = [lm.content.get(field) for field in _TOKENS]
    if len(set(ids)) < len(ids):
        yield Finding("wrong", "ids", "two fields of config.json name one token")
    yield Finding("note" if others else "ok", "ids", "; ".join(others) or f"{n_ids} special tokens, as expected")
    yield _chat_template(directory)


def _chat_template(directory: Path) -> Finding:
    """Whether its processor would put the same words around a user turn."""
    from transformers import PreTrainedTokenizerFast  # only here: it takes a while

    try:
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
        written = tokenizer.apply_chat_template(
            [{"role": "user", "content": "words"}],
            chat_template=(directory / "chat_template.jinja").read_text(encoding="utf-8"),
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # a template may do anything
        return Finding("note", "chat template", f"cannot be tried: {type(error).__name__}: {str(error)[:80]}")
    if written != _CHAT:
        return Finding("wrong", "chat template", f"writes {json.dumps(written)}, needed is {json.dumps(_CHAT)}")
    return Finding("ok", "chat template", "writes a user turn as is done here")


def _weights(lm: JsonFile) -> Iterator[Finding]:
    """How many codebooks the weights have; whether all of them are there is looked at when they are fused."""
    directory = lm.path.parent
    n_vq = lm.content.get("n_vq")
    try:
        if (directory / INDEX_NAME).is_file():
            names = list(read_json(directory / INDEX_NAME).mapping("weight_map"))
        elif (directory / SINGLE_NAME).is_file():
            names = list(read_weights(directory))
        else:
            yield Finding("note", "weights", "are not there: nothing to count codebooks by")
            return
    except FuseError as error:
        yield Finding("wrong", "weights", str(error))
        return
    n_embeddings = sum(name.startswith("emb_ext.") for name in names)
    n_heads = sum(name.startswith("lm_heads.") for name in names)
    is_right = isinstance(n_vq, int) and (n_embeddings, n_heads) == (n_vq, n_vq + 1)
    needed = "" if is_right else f", needed are {n_vq} and one more"
    yield Finding(
        "ok" if is_right else "wrong", "weights", f"{n_embeddings} embeddings of codes and {n_heads} heads{needed}"
    )
