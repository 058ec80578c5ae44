"""What a client may ask of one request: `sampling_params` and its `custom_params`, checked once, here.

Defaults are those of the model's profile.
"""

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sglang_moss.errors import BadSetting
from sglang_moss.request.profile import TTSD, ChannelSampling, Profile
from sglang_moss.request.prompt import MODES
from sglang_moss.request.template import FIELDS, FieldValue
from sglang_moss.request.values import flag, integer, repetition_penalty, shown

SEED_LIMIT = 2**63
MAX_CHUNK_FRAMES = 512
MAX_FIRST_FRAMES = 32  # until its first event has left, a stream goes before others

# Settings of SGLang's that have no meaning for codes, with the value that switches each off.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "min_p": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "min_new_tokens": (0,),
    "stop": ("", []),
    "stop_token_ids": ([],),
    "stop_regex": ("", []),
    "logit_bias": ({},),
    "json_schema": (),
    "regex": (),
    "ebnf": (),
    "structural_tag": (),
}
# Settings of text output: harmless and without effect here.
_IGNORED = ("skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim", "stream_interval")
_OURS = (
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "sampling_seed",
    "max_new_tokens",
    "ignore_eos",
    "custom_params",
)
_CUSTOM = (
    "mode",
    "return_codes",
    "timestamps",
    "timings",
    "strict",
    "chunk_frames",
    "first_frames",
    "text_temperature",
    "text_top_p",
    "text_top_k",
)
_PROMPT_FIELDS = tuple(name for name in FIELDS if name != "text")
# A wish for a length is no end: a model that misses it is cut at so many times of it.
_LENGTH_MARGIN = 1.5


@dataclass(frozen=True)
class RequestOptions:
    """Everything in `sampling_params` that we honour, with defaults filled in."""

    text: ChannelSampling
    audio: ChannelSampling
    repetition_penalty: float  # audio codebooks only; 1: off
    seed: int  # [0, 2**63)
    max_frames: int | None  # None: what the context still holds
    ignore_eos: bool  # exactly `max_frames` frames
    mode: str | None  # one of `prompt.MODES`; None: by whether references came
    return_codes: bool
    timestamps: bool = False  # `meta_info.turns`
    timings: bool = False  # `meta_info.timings` of a stream's first event
    # At most `max_frames` frames, and no clip without a whole one; else as the reference counts and takes them.
    strict: bool = False
    chunk_frames: int = 32  # of a stream's events, once they have grown to it
    # Of its first event. So much is still to be played when the next one comes, though prompts of others may take the
    # steps between them. Unless it is asked for, no more than `chunk_frames`.
    first_frames: int = 4
    fields: Mapping[str, FieldValue] = field(default_factory=dict)  # of the user turn, besides its text

    @classmethod
    def parse(cls, sampling_params: dict[str, Any], profile: Profile = TTSD) -> "RequestOptions":
        """Read a request's `sampling_params`.

        Args:
            profile: of the model.
        Raises:
            BadSetting: a name we do not know, a value of the wrong type or out of range, or a setting of SGLang's that
                this model cannot honour.
        """
        params = {name: value for name, value in sampling_params.items() if value is not None}
        custom = _custom_params(params)
        _refuse_unknown(params, custom, profile)
        audio = profile.audio.changed_by(params)
        text = (profile.text or audio).changed_by(custom, prefix="text_")
        max_frames = integer(params, "max_new_tokens", low=1)
        ignore_eos = flag(params, "ignore_eos")
        if ignore_eos and max_frames is None:
            raise BadSetting("ignore_eos needs max_new_tokens: without an end of its own the request needs a length")
        mode = custom.get("mode")
        if mode is not None and mode not in MODES:
            raise BadSetting(f"custom_params.mode must be one of {', '.join(MODES)}, got {shown(mode)}")
        seed = integer(params, "sampling_seed", low=0, high=SEED_LIMIT - 1)
        chunk_frames = integer(custom, "chunk_frames", low=1, high=MAX_CHUNK_FRAMES)
        chunk_frames = cls.chunk_frames if chunk_frames is None else chunk_frames
        first_frames = integer(custom, "first_frames", low=1, high=MAX_FIRST_FRAMES)
        return cls(
            text=text,
            audio=audio,
            repetition_penalty=repetition_penalty(params, profile.repetition_penalty),
            seed=secrets.randbelow(SEED_LIMIT) if seed is None else seed,
            max_frames=max_frames,
            ignore_eos=ignore_eos,
            mode=mode,
            return_codes=flag(custom, "return_codes"),
            timestamps=flag(custom, "timestamps"),
            timings=flag(custom, "timings"),
            strict=flag(custom, "strict"),
            chunk_frames=chunk_frames,
            first_frames=min(cls.first_frames, chunk_frames) if first_frames is None else first_frames,
            fields=_prompt_fields(custom),
        )

    def frames_for(self, tokens: int | None) -> int | None:
        """`max_frames`, or where there is none and a length is wished for, where a model that misses it is cut."""
        if self.max_frames is not None or tokens is None:
            return self.max_frames
        return frames_allowed(tokens)


def frames_allowed(tokens: int) -> int:
    """Frames at which an answer is cut that is wished to have `tokens` of them."""
    return math.ceil(_LENGTH_MARGIN * tokens) + 1


def _custom_params(params: dict[str, Any]) -> dict[str, Any]:
    custom = params.get("custom_params", {})
    if not isinstance(custom, dict):
        raise BadSetting(f"custom_params must be an object, got {type(custom).__name__}")
    return {name: value for name, value in custom.items() if value is not None}


def _prompt_fields(custom: dict[str, Any]) -> dict[str, FieldValue]:
    """Fields of the user turn among `custom_params`; whether the model takes them is asked where all are known."""
    fields: dict[str, FieldValue] = {}
    for name in _PROMPT_FIELDS:
        value = custom.get(name)
        if name == "tokens":
            value = integer(custom, name, low=1)
        elif value is not None and not isinstance(value, str):
            raise BadSetting(f"custom_params.{name} must be a string, got {shown(value)}")
        if value is not None:
            fields[name] = value
    return fields


def _refuse_unknown(params: dict[str, Any], custom: dict[str, Any], profile: Profile) -> None:
    for name, value in params.items():
        if name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                raise BadSetting(f"sampling_params.{name} is not supported by this model; leave it out")
        elif name not in _OURS and name not in _IGNORED:
            raise BadSetting(f"sampling_params has no {str(name)[:64]!r}; known are {', '.join((*_OURS, 'n'))}")
    unknown = [str(name)[:64] for name in custom if name not in (*_CUSTOM, *_PROMPT_FIELDS)]
    if unknown:
        known = (*_CUSTOM, *(name for name in _PROMPT_FIELDS if profile.takes(name)))
        raise BadSetting(f"custom_params has no {unknown[0]!r}; known are {', '.join(known)}")
