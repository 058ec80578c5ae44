"""A tokenizer of letters, in the files of Qwen2's: bytes, almost no merges, control tokens at their real places.

Letters align with sound; merges blur it. Only the words that the prompt's template is made of are merged, each from its
first sign on, so that ordinary words share at most the first pairs of a capital with them. Speaker tags are tokens.
"""

import json
from pathlib import Path
from typing import Any

from sglang_moss.request.text import MAX_SPEAKERS

# Behind the bytes and pieces, in Qwen3's order; the second half of them are not special.
CONTROL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|audio_start|>", "<|audio_end|>", "<|audio_user_slot|>",
    "<|image_pad|>", "<|audio_assistant_gen_slot|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|audio_assistant_delay_slot|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
_NOT_SPECIAL = frozenset(CONTROL[14:]) - {"<|audio_assistant_delay_slot|>"}
# Pieces of the template, as Qwen2's pattern cuts them.
_PIECES = (
    "<user", "_inst", ">\n", "Reference", "(s", "):\n", "]:\n", "Instruction", ":\n", "None", "Tokens", "Quality",
    "Sound", "Event", "Ambient", "Language", "Scene", "Text", "</",
)  # fmt: skip
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary() -> tuple[dict[str, int], list[list[str]]]:
    """Ids of bytes and pieces, and the merges that make the pieces."""
    signs = _signs_of_bytes()
    ids = {sign: i for i, sign in enumerate(signs)}
    merges: list[list[str]] = []
    for piece in _PIECES:
        first, *rest = [signs[byte] for byte in piece.encode()]
        for sign in rest:
            if [first, sign] not in merges:
                merges.append([first, sign])
            first += sign
            ids.setdefault(first, len(ids))
    return ids, merges


def token_ids() -> dict[str, int]:
    """Ids of the control tokens and of the speaker tags."""
    first = len(vocabulary()[0])
    tags = [f"[S{k}]" for k in range(1, MAX_SPEAKERS + 1)]
    return {content: first + i for i, content in enumerate((*CONTROL, *tags))}


def write_tokenizer(directory: Path) -> None:
    """Write the tokenizer's files into a checkpoint."""
    ids, merges = vocabulary()
    added = [_added(content, i) for content, i in token_ids().items()]
    special = [token["content"] for token in added if token["special"]]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _PATTERN}, "behavior": "Isolated", "invert": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    files: dict[str, Any] = {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": {**byte_level, "trim_offsets": False},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {**model, "vocab": ids, "merges": merges},
        },
        "tokenizer_config.json": {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(token["id"]): {name: value for name, value in token.items() if name != "id"} for token in added
            },
            "additional_special_tokens": [content for content in special if content != "<|endoftext|>"],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "processor_class": "MossTTSDelayProcessor",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
        "special_tokens_map.json": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "vocab.json": ids,
        "added_tokens.json": token_ids(),
    }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=name == "added_tokens.json")
        (directory / name).write_text(text + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")


def _signs_of_bytes() -> list[str]:
    """The sign of each byte in byte-level BPE: its own where it can be seen, else the next from 256 on."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    unseen = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(unseen)) for byte in range(256)]


def _added(content: str, token_id: int) -> dict[str, Any]:
    is_special = content in CONTROL and content not in _NOT_SPECIAL
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, **flags, "special": is_special}
