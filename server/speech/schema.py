"""What the API document says of answers: the endpoints of voices send these, the other one describes them."""

from typing import Any, Literal, get_args

from pydantic import BaseModel, Field

from .encoding import media_type
from .fields import AudioFormat


class ErrorFields(BaseModel):
    """What is wrong, for people (`message`) and for programs."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every refusal and failure, as OpenAI has it."""

    error: ErrorFields


class VoiceAnswer(BaseModel):
    """A stored voice; `id` is what `/v1/audio/speech` takes."""

    object: Literal["voice"] = "voice"
    id: str
    name: str
    text: str | None
    seconds: float
    n_bytes: int
    created: int
    starter: bool = Field(
        False, description="It comes with the server: it can be used, and neither changed nor removed."
    )


class VoiceName(BaseModel):
    """A voice as chat clients list it."""

    id: str
    name: str


class VoiceList(BaseModel):
    """All stored voices; `voices` has their names alone, where clients of other servers look for them."""

    object: Literal["list"] = "list"
    data: list[VoiceAnswer]
    voices: list[VoiceName]


class VoiceDeleted(BaseModel):
    """A voice that is no more."""

    object: Literal["voice.deleted"] = "voice.deleted"
    id: str
    deleted: Literal[True] = True


class SamplingAnswer(BaseModel):
    """How text ids, or codes, are drawn where a request says nothing."""

    temperature: float
    top_p: float
    top_k: int


class ProfileAnswer(BaseModel):
    """Which model of the family this server has, and what it takes.

    `fields` are those of the user turn, by their names in `custom_params` of `/generate`; so are `required` ones.
    `offers` is what the page can ask of this server beside speech: `design`, `script` or `transcript`.
    """

    object: Literal["profile"] = "profile"
    name: str
    model: str
    fields: list[str]
    required: list[str]
    max_references: int
    max_reference_seconds: float
    frames_per_second: float
    audio: SamplingAnswer
    text: SamplingAnswer | None
    repetition_penalty: float
    offers: list[str]


# In FastAPI's words. Naming 4XX also keeps it from promising its own shape of validation errors.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request cannot be served as it is."},
    "5XX": {"model": ErrorAnswer, "description": "The server failed, or is shutting down."},
}
_AUDIO = {"schema": {"type": "string", "format": "binary"}}
_EVENTS = {"schema": {"type": "string"}}
CLIP: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"application/octet-stream": _AUDIO}}
}
SPEECH: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Audio in `response_format`, or events.",
        "content": {media_type(name): _AUDIO for name in get_args(AudioFormat)} | {"text/event-stream": _EVENTS},
    },
    **ERRORS,
}
