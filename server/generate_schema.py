"""What `/generate` takes and answers, field by field, for the API's description.

`generate_body` and `request.settings` decide what is taken; a test holds the names here against theirs. Defaults are
those of the checkpoint that is served.
"""

from typing import Any

from sglang_moss.request.profile import PROFILES, ChannelSampling, Profile
from sglang_moss.request.prompt import MODES
from sglang_moss.request.settings import MAX_CHUNK_FRAMES, MAX_FIRST_FRAMES, SEED_LIMIT, RequestOptions
from sglang_moss.request.template import FIELDS


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def _one_or_many(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}


def _number(description: str, default: float | None, low: float, high: float) -> dict[str, Any]:
    return _shown({"type": "number", "minimum": low, "maximum": high}, description, default)


def _integer(description: str, default: int | None, low: int, high: int | None = None) -> dict[str, Any]:
    bounds = {"minimum": low} if high is None else {"minimum": low, "maximum": high}
    return _shown({"type": "integer", **bounds}, description, default)


def _flag(description: str) -> dict[str, Any]:
    return _shown({"type": "boolean"}, description, False)


def _shown(schema: dict[str, Any], description: str, default: Any) -> dict[str, Any]:
    return {**schema, "description": description} | ({} if default is None else {"default": default})


def _prompt_fields() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in (name for name in FIELDS if name != "text"):
        models = ", ".join(profile.model for profile in PROFILES.values() if name in profile.fields)
        kind = "integer" if name == "tokens" else "string"
        found[name] = {"type": kind, "description": f"Of the user turn; taken by {models or 'no model yet'}."}
    return found


def custom_params(profile: Profile) -> dict[str, Any]:
    """Schemas of `sampling_params.custom_params`, by name."""
    return {
        "mode": {
            "enum": list(MODES),
            "description": "How references are put to the model; the last with references, the first without.",
        },
        **_text_channel(profile.text),
        "return_codes": _flag("Also `meta_info.audio_codes`, [frames][codebooks]; in a stream those of the event."),
        "timestamps": _flag("The same as `timestamps` of the body."),
        "timings": _flag("Also `meta_info.timings` of a stream's first event: when it passed each place on its way."),
        "strict": _flag("At most `max_new_tokens` frames in every mode, and no reference shorter than a frame."),
        "chunk_frames": _integer(
            "Frames of a stream's events once they have grown.", RequestOptions.chunk_frames, 1, MAX_CHUNK_FRAMES
        ),
        "first_frames": _integer(
            "Frames of a stream's first event; unless given, at most `chunk_frames`.",
            RequestOptions.first_frames,
            1,
            MAX_FIRST_FRAMES,
        ),
        **_prompt_fields(),
    }


def _text_channel(own: ChannelSampling | None) -> dict[str, Any]:
    """Settings of its draw; None: it is drawn as the codes are."""

    def described(name: str) -> str:
        return "Of the text channel." if own else f"Of the text channel; as `{name}` unless given."

    return {
        "text_temperature": _number(described("temperature"), own and own.temperature, 0, 100),
        "text_top_p": _number(described("top_p"), own and own.top_p, 0, 1),
        "text_top_k": _integer(described("top_k"), own and own.top_k, -1),
    }


def sampling_params(profile: Profile) -> dict[str, Any]:
    """Schemas of `sampling_params`, by name."""
    audio, penalty = profile.audio, profile.repetition_penalty
    return {
        "max_new_tokens": _integer("Frames of 80 ms at most; what the context holds unless given.", None, 1),
        "temperature": _number("Of the audio channels; 0 is greedy.", audio.temperature, 0, 100),
        "top_p": _number("Of the audio channels; above 0.", audio.top_p, 0, 1),
        "top_k": _integer("Of the audio channels; -1 is off.", audio.top_k, -1),
        "repetition_penalty": _number("Of the audio channels, over prompt and speech; 1 is off.", penalty, 0.01, 2),
        "sampling_seed": _integer(
            "Repeats an answer; `meta_info.sampling_seed` names the one used.", None, 0, SEED_LIMIT - 1
        ),
        "ignore_eos": _flag("Exactly `max_new_tokens` frames."),
        "n": _integer("Samples of each text, with seeds that follow each other.", 1, 1),
        "custom_params": _object(custom_params(profile)),
    }


def body(profile: Profile) -> dict[str, Any]:
    """OpenAPI's `requestBody` of a server of this model, with the defaults that its checkpoint brings."""
    settings = "Settings; of several texts, one for all or one each."
    fields = {**_BODY_FIELDS, "sampling_params": _one_or_many(_object(sampling_params(profile)), settings)}
    return {"required": True, "content": {"application/json": {"schema": _object(fields, required=["text"])}}}


_TEXT = {"type": "string", "examples": ["[S1] Did you hear that? [S2] No. What was it?"]}
_CLIP = {"type": "string", "description": "Base64, a data URI or a URL of WAV, FLAC, OGG, MP3, M4A, MP4, AAC or WebM."}
_CLIPS = {"anyOf": [_CLIP, {"type": "array", "items": _CLIP}]}
_ID = {"type": "string"}
_BODY_FIELDS = {
    "text": _one_or_many(_TEXT, "The script, or several: speaker tags [S1] to [S5], and directives at the start."),
    "audio_data": {
        "description": "References: the clip of [S1], of [S2], and so on; of several texts, one such entry each.",
        "anyOf": [_CLIP, {"type": "array", "items": _CLIPS}],
    },
    "sampling_params": {},  # of the model
    "stream": _flag("Server-sent events, each with the audio that is new; the last is `[DONE]`."),
    "timestamps": _flag(
        "Also `meta_info.turns`: speaker, start and end in seconds, and text of each turn, estimated from the sound; "
        "of a stream with its last event. Not in a mode that continues references."
    ),
    "rid": _one_or_many(_ID, "What the client calls the request; echoed in `meta_info.id`."),
    "priority": _integer("Of the scheduler, where the server has priorities.", None, -(2**31) + 1, 2**31 - 1),
    "extra_key": {"type": "string", "description": "Requests share cached prompts under one key alone."},
}
_JSON: dict[str, Any] = {"content": {"application/json": {}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`text` is a WAV in base64 (16 bit, mono, 24 kHz), `meta_info` says what it holds; "
        "of several texts or samples a list; with `stream`, events.",
        **_JSON,
    },
    400: {"description": "It cannot be spoken as sent; the sentence says why.", **_JSON},
    429: {"description": "The server is full.", **_JSON},
    503: {"description": "The server is busy or shutting down.", **_JSON},
}
