"""The files of a fused checkpoint beside its weights: three JSON files made anew, the tokenizer's copied.

Source: the fuse script of MOSS-TTSD (`config.json`, `processor_config.json`, `tokenizer_config.json`), without the
Python file that it puts beside them: serving needs none.
"""

import json
import re
from typing import Any

from sglang_moss.checkpoint import ARCHITECTURE, MODEL_TYPE, OWN_FIELD
from sglang_moss.errors import BadSetting
from sglang_moss.request.profile import OWN_DEFAULTS, Profile

from .errors import FuseError
from .json_file import JsonFile, read_json, to_bytes

CONFIG_NAME = "config.json"
PROCESSOR_CLASS = "MossTTSDelayWithCodecProcessor"
PROCESSOR_MODULE = "processing_moss_tts_delay_with_codec"

REQUIRED_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
OPTIONAL_TOKENIZER_FILES = ("added_tokens.json", "merges.txt", "vocab.json")

# Field of processor_config.json: field of config.json with the id of that token.
PROCESSOR_TOKENS = {
    "audio_start_token": "audio_start_token_id",
    "audio_end_token": "audio_end_token_id",
    "audio_user_slot_token": "audio_user_slot_token_id",
    "audio_assistant_gen_slot_token": "audio_assistant_gen_slot_token_id",
    "audio_assistant_delay_slot_token": "audio_assistant_delay_slot_token_id",
}
OTHER_TOKENS = ("pad_token_id", "language_config.pad_token_id", "im_start_token_id", "im_end_token_id")


def fused_files(lm: JsonFile, codec: JsonFile, profile: Profile) -> dict[str, bytes]:
    """Name and content of every file but weights and index, `config.json` last.

    Args:
        lm, codec: config.json of the language model, whose directory holds the tokenizer, and of the codec.
        profile: of the model.
    Raises:
        FuseError: a field or a tokenizer file is missing, or a special token is not in the tokenizer.
    """
    directory = lm.path.parent
    missing = [name for name in REQUIRED_TOKENIZER_FILES if not (directory / name).is_file()]
    if missing:
        raise FuseError(f"{directory / missing[0]} is missing: download the whole checkpoint")
    names = (*REQUIRED_TOKENIZER_FILES, *OPTIONAL_TOKENIZER_FILES)
    files = {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}
    files["tokenizer_config.json"] = _with_processor_class(read_json(directory / "tokenizer_config.json"))
    files["processor_config.json"] = to_bytes(_processor_config(lm, codec, read_json(directory / "tokenizer.json")))
    files[CONFIG_NAME] = to_bytes(_fused_config(lm, codec, profile))
    return files


def _fused_config(lm: JsonFile, codec: JsonFile, profile: Profile) -> dict[str, Any]:
    if "dtype" not in lm.content and "torch_dtype" in lm.content:
        raise FuseError(f"{lm.path} has no field 'dtype', only the older 'torch_dtype': rename that field to 'dtype'")
    language = {"eos_token_id": lm.integer("audio_end_token_id"), "dtype": lm.text("dtype")}
    fused = {
        **lm.content,
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        # Serving stops at the end of the audio, which is the stop token of the language part from here on.
        "language_config": lm.mapping("language_config") | language,
        "codec_config": {key: value for key, value in codec.content.items() if key != "auto_map"},
    }
    for name in ("auto_map", OWN_FIELD):
        fused.pop(name, None)
    own = {} if profile.is_ttsd else {"profile": profile.name}
    own |= _own_defaults(lm, profile)
    return fused | ({OWN_FIELD: own} if own else {})


def _own_defaults(lm: JsonFile, profile: Profile) -> dict[str, Any]:
    """Defaults that the checkpoint brings, checked; nothing where it brings none."""
    own = lm.content.get(OWN_FIELD)
    own = {name: own[name] for name in OWN_DEFAULTS if name in own} if isinstance(own, dict) else {}
    try:
        profile.with_defaults(own)
    except BadSetting as error:
        raise FuseError(f"{lm.path}: {OWN_FIELD}: {error}") from None
    return own


def _processor_config(lm: JsonFile, codec: JsonFile, tokenizer: JsonFile) -> dict[str, Any]:
    text_of = _added_tokens(tokenizer)
    for field in (*PROCESSOR_TOKENS.values(), *OTHER_TOKENS):
        if lm.integer(field) not in text_of:
            raise FuseError(
                f"{tokenizer.path}: added_tokens lacks id {lm.integer(field)}, which {lm.path} names as {field}: "
                "take both files from the same checkpoint"
            )
    return {
        "AudioToken_PlaceHolder": "<|Audio|>",
        "audio_pad_code": lm.integer("audio_pad_code"),
        "auto_map": {"AutoProcessor": f"{PROCESSOR_MODULE}.{PROCESSOR_CLASS}"},
        "continuation": True,
        "downsample_rate": codec.integer("downsample_rate"),
        "n_vq": lm.integer("n_vq"),
        "processor_class": PROCESSOR_CLASS,
        "shift": True,
        "text_pad_code": lm.integer("language_config.pad_token_id"),
    } | {field: text_of[lm.integer(id_field)] for field, id_field in PROCESSOR_TOKENS.items()}


def _added_tokens(tokenizer: JsonFile) -> dict[int, str]:
    """Text of each added token, by id."""
    text_of: dict[int, str] = {}
    entries = tokenizer.content.get("added_tokens")
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case {"id": int(token_id), "content": str(text)} if token_id not in text_of:
                text_of[token_id] = text
            case _:
                raise FuseError(
                    f"{tokenizer.path}: added_tokens must be entries with an id of their own and a content, found "
                    f"{json.dumps(entry)[:80]}: download it again"
                )
    return text_of


def _with_processor_class(config: JsonFile) -> bytes:
    """tokenizer_config.json with that one value replaced and every other byte kept."""
    config.text("processor_class")
    expected = config.content | {"processor_class": PROCESSOR_CLASS}
    raw = config.path.read_bytes().decode("utf-8")
    for found in re.finditer(r'"processor_class"\s*:\s*("(?:[^"\\]|\\.)*")', raw):
        text = f'{raw[: found.start(1)]}"{PROCESSOR_CLASS}"{raw[found.end(1) :]}'
        if json.loads(text) == expected:  # the same key may also stand in a nested object, or inside a string
            return text.encode("utf-8")
    raise FuseError(f"{config.path}: the value of 'processor_class' cannot be replaced: write the key unescaped")
