"""`POST /page/design`: a voice from its description, made by a server of MOSS-VoiceGenerator (`--design-url`).

The page may talk to its own server only, and the other one's key is nobody else's business.
"""

from http import HTTPStatus
from typing import Annotated, get_args

import pybase64
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sglang_moss.errors import Code

from ...clients.async_client import AsyncMossClient
from ...clients.design import NoDesign, async_design, makes_voices, sample_text
from ...clients.errors import ClientError, ServerRefused
from ..errors import BadField, HelperFailed, QueueFull, SpeechRoute
from ..waiting import while_connected

_Words = Annotated[str, Field(max_length=2_000)]
_TIMEOUT_SECONDS = 300.0  # without anything new
_CODES: dict[str | None, Code] = {code: code for code in get_args(Code)}


class DesignFields(BaseModel):
    """What voice, and what it says; without a text, some sentences in the description's language."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: _Words
    text: _Words = ""


class DesignAnswer(BaseModel):
    """A WAV file in base64, and what is said in it."""

    audio: str
    text: str
    seconds: float
    seed: int


def design_router(url: str, api_key: str | None) -> APIRouter:
    """`POST /page/design`.

    Args:
        url: of the other server.
        api_key: its key, if it has one.
    """
    router = APIRouter(route_class=SpeechRoute)

    @router.post("/page/design", include_in_schema=False)
    async def design(fields: DesignFields, request: Request) -> DesignAnswer:
        """Make a voice; each time another one."""
        if not fields.description.strip():
            raise BadField("description: of the voice; say who speaks", "description")
        return await while_connected(request, _made(fields, url, api_key))

    return router


async def _made(fields: DesignFields, url: str, api_key: str | None) -> DesignAnswer:
    text = fields.text.strip() or sample_text(fields.description)
    try:
        async with AsyncMossClient(url, api_key, _TIMEOUT_SECONDS, retries=0) as client:
            model = await client.profile()
            if not makes_voices(model):
                raise HelperFailed(f"--design-url names a server of {model.model}; name one of MOSS-VoiceGenerator")
            made = await async_design(client, fields.description, text, {})
    except NoDesign as error:
        raise BadField(
            "the voice did not come to the end of its text: make another one, or shorten it", None, "no_design"
        ) from error
    except ServerRefused as error:
        if error.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise QueueFull(error.message, error.retry_after_s) from error
        if error.status == HTTPStatus.BAD_REQUEST:
            raise BadField(error.message, None, _CODES.get(error.code)) from error
        raise HelperFailed(f"the server of --design-url answered {error}") from error
    except ClientError as error:  # which names the address; the log has it
        raise HelperFailed(
            "the server of --design-url cannot be reached, or broke off; this server's log says more"
        ) from error
    return DesignAnswer(
        audio=pybase64.b64encode(made.wav).decode(), text=made.text, seconds=made.seconds, seed=made.seed
    )
