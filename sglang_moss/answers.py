"""Answers on their way out, in the HTTP process: `meta_info` put right, failures said and cleaned up after."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import HTTPException
from sglang.srt.managers.io_struct import AbortReq

from sglang_moss.errors import BadRequest, MossError
from sglang_moss.output import META


async def speech_answers(
    generate: Callable[..., AsyncIterator[Any]], manager: Any, request: Any, *args: Any, **kwargs: Any
) -> AsyncIterator[Any]:
    """What `TokenizerManager.generate_request` yields for `request`, a `GenerateReqInput`.

    Raises:
        ValueError: HTTP 400, as SGLang has it.
        HTTPException: a failure on our side, with its sentence.
    """
    try:
        async for answer in generate(manager, request, *args, **kwargs):
            yield [flatten_meta(one) for one in answer] if isinstance(answer, list) else flatten_meta(answer)
    except Exception as error:
        # SGLang forgets the other entries of a batch here, while they are still running.
        for rid in request.rid if isinstance(request.rid, list) else [request.rid] if request.rid else []:
            manager._dispatch_to_scheduler(AbortReq(rid=rid))
        if isinstance(error, MossError) and not isinstance(error, BadRequest):
            raise HTTPException(error.status, str(error)) from error
        raise


def flatten_meta(answer: dict[str, Any]) -> dict[str, Any]:
    """Lift our part of `meta_info`, which SGLang keeps as a list per token, to its top level."""
    meta = answer.get("meta_info")
    if meta and META in meta:
        parts = meta.pop(META)
        meta.update(parts[-1] if parts else {})
    return answer
