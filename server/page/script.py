"""`POST /page/script`: a talk about a web page or a document, written by a language model (`--script-llm-url`).

address -> fetched from public addresses only (audio/fetching) -> text, by a program of its own (document_text)
        -> the language model -> only what is a script passes (clients/podcast_script)
"""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from pydantic import BaseModel

from sglang_moss.audio.fetching import CannotFetch, FetchLimits, fetch
from sglang_moss.request.text import MAX_SPEAKERS

from ...clients.podcast_script import NoScript, checked_script, script_request
from ...clients.podcast_source import BROWSER, HTML_SUFFIXES, MAX_BYTES, MAX_CHARS
from ...clients.podcast_writer import ask_writer
from ..errors import BadField, HelperFailed, SpeechRoute
from ..waiting import while_connected
from .document_text import UNUSABLE
from .programs import run_program

_READER = "sglang_moss.server.page.document_text"
_READ_SECONDS, _FETCH_SECONDS, _WRITE_SECONDS = 60.0, 30.0, 600.0
_AT_A_TIME = 4  # each may hold a document of 20 MB
_LONGEST_MINUTES = 60.0
_MAX_LANGUAGE_CHARS = 40


@dataclass(frozen=True)
class LanguageModel:
    """One with OpenAI's API."""

    url: str
    model: str
    api_key: str | None = field(repr=False)


@dataclass(frozen=True)
class _Wish:
    """What talk is wanted, about what."""

    url: str
    data: bytes  # of a file; empty: the address is meant
    is_html: bool
    minutes: float
    language: str
    speakers: int


class ScriptAnswer(BaseModel):
    """A turn a line, `[S1] ...`; whether only the beginning of the source was used."""

    script: str
    is_cut: bool


def script_router(writer: LanguageModel, *, allow_private_urls: bool = False) -> APIRouter:
    """`POST /page/script`.

    Args:
        allow_private_urls: whether addresses of the server's own network may be read.
    """
    router = APIRouter(route_class=SpeechRoute)
    places = asyncio.Semaphore(_AT_A_TIME)
    limits = FetchLimits(
        MAX_BYTES, allow_private_urls, _FETCH_SECONDS, max_redirects=5, what="a document", headers=BROWSER
    )

    async def written(wish: _Wish) -> ScriptAnswer:
        async with places:
            text = await _text_of(wish, limits)
            messages = script_request(text, wish.minutes, wish.language, wish.speakers)
            try:
                answer = await ask_writer(messages, writer.model, writer.url, writer.api_key, _WRITE_SECONDS)
                script = checked_script(answer, wish.minutes, wish.speakers)
            except NoScript as error:
                # Without the model's address, which may be one of the server's own network.
                raise HelperFailed(str(error).replace(writer.url, "--script-llm-url")) from error
        return ScriptAnswer(script=script, is_cut=len(text) == MAX_CHARS)

    @router.post("/page/script", include_in_schema=False)
    async def write(
        request: Request,
        url: Annotated[str, Form()] = "",
        file: Annotated[UploadFile | None, File()] = None,
        minutes: Annotated[float, Form()] = 3.0,
        language: Annotated[str, Form()] = "",
        speakers: Annotated[int, Form()] = 2,
    ) -> ScriptAnswer:
        """Write a script about a `url` or a `file`, in `language`, or else that of the source."""
        if bool(url.strip()) == (file is not None):
            raise BadField("url: send an address or a file, and one of them", "url")
        if not 0.5 <= minutes <= _LONGEST_MINUTES:
            raise BadField(f"minutes: from 0.5 to {_LONGEST_MINUTES:g}", "minutes")
        if not 1 <= speakers <= MAX_SPEAKERS:
            raise BadField(f"speakers: from 1 to {MAX_SPEAKERS}", "speakers")
        if len(language) > _MAX_LANGUAGE_CHARS or not language.isprintable():
            raise BadField("language: its name or code, such as en", "language")
        data = b"" if file is None else await file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise BadField(f"file: a document has at most {MAX_BYTES} bytes; cut it", "file", "document_too_large")
        if file is not None and not data:
            raise BadField("file: expected a document, got no bytes", "file", "no_text")
        is_html = file is not None and (file.filename or "").lower().endswith(HTML_SUFFIXES)
        wish = _Wish(url.strip(), data, is_html, minutes, language.strip(), speakers)
        return await while_connected(request, written(wish))

    return router


async def _text_of(wish: _Wish, limits: FetchLimits) -> str:
    """
    Raises:
        BadField: the source cannot be had, or holds no text.
        HelperFailed: it cannot be read within bounds.
    """
    param, data, is_html = "file", wish.data, wish.is_html
    if not data:
        try:
            fetched = await fetch(wish.url, limits)
        except CannotFetch as error:
            raise BadField(f"url: {error}", "url", "cannot_fetch") from None
        param, data, is_html = "url", fetched.data, "html" in (fetched.media_type or "html")
    ended = await run_program(_READER, ["html"] if is_html else [], data, _READ_SECONDS)
    if ended.status == UNUSABLE:
        raise BadField(f"{param}: {ended.complaint}", param, "no_text")
    if ended.status:
        raise HelperFailed(f"the document could not be read: {ended.complaint}")
    return ended.output.decode()
