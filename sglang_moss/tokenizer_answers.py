"""Answers on their way out, in the HTTP process: audio and `meta_info` put right, failures said, leavers aborted."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import numpy as np
from fastapi import HTTPException
from sglang.srt.managers.io_struct import AbortReq

from sglang_moss.audio.wav import pcm_of_base64
from sglang_moss.decode.wire import chunks_of, whole_answer
from sglang_moss.errors import BadRequest, MossError
from sglang_moss.generate_body import shown_ids
from sglang_moss.output_sender import META
from sglang_moss.request.first_sound import FirstSoundMarks
from sglang_moss.request.record import BAD_REQUEST, current_record
from sglang_moss.request.turns import Turn
from sglang_moss.turn_times.timing import told_turns


async def speech_answers(
    generate: Callable[..., Any], manager: Any, request: Any, *args: Any, **kwargs: Any
) -> AsyncGenerator[Any, None]:
    """What `TokenizerManager.generate_request` yields for `request`, a `GenerateReqInput`.

    Whole: one answer, or a list of them. Streamed: one event a chunk of audio, the last one of each request with its
    `finish_reason`; a request that fails has one of type "abort" with a message. Whatever is still running when the
    caller goes away, or fails, is aborted at once.

    Raises:
        ValueError: HTTP 400, as SGLang has it.
        HTTPException: a failure on our side, with its sentence; whole answers only.
    """
    streams = _Streams(manager) if getattr(request, "stream", False) else None
    ended: set[str] = set()
    ranks = manager.mm_processor.ranks
    timed = _Timed(manager.mm_processor.timed_turns)
    first_sounds = manager.mm_processor.first_sounds
    record = current_record()
    record.is_streamed |= streams is not None
    try:
        async with aclosing(generate(manager, request, *args, **kwargs)) as answers:
            async for answer in answers:
                each = answer if isinstance(answer, list) else [answer]
                for rid in [one["meta_info"]["id"] for one in each if _finish_reason(one)]:
                    ended.add(rid)
                    ranks.release(rid)
                if streams is None:
                    whole = [_whole(one) for one in each]
                    for one in whole:
                        record.take(one)
                        await timed.tell(one)
                        _show_id(request, one)
                    yield whole if isinstance(answer, list) else whole[0]
                    continue
                for one in each:
                    for event in streams.events(one):
                        record.take(event)
                        await timed.tell(event)
                        _show_id(request, event)
                        yield event
    except BaseException as error:
        _abort(manager, [rid for rid in _ids(request) if rid not in ended], forgotten=isinstance(error, Exception))
        if isinstance(error, MossError):
            record.keep_problem(error)
        if isinstance(error, ValueError):  # a stream's status is out already
            record.refusal = BAD_REQUEST
        if not isinstance(error, MossError) or isinstance(error, BadRequest):
            raise
        if streams is None:
            raise HTTPException(error.status, str(error)) from error
        for event in _failures(request, ended, error):
            record.take(event)
            _show_id(request, event)
            yield event
    finally:
        for rid in _ids(request):
            ranks.release(rid)
            timed.forget(rid)
            first_sounds.forget(rid)


class _Timed:
    """Tells the times of turns where they were asked for: of a whole answer, or with a stream's last event.

    Args:
        turns: by request id; what is told or forgotten is taken out.
    """

    def __init__(self, turns: dict[str, list[Turn]]) -> None:
        self._turns = turns
        self._wavs: dict[str, list[str]] = {}

    async def tell(self, answer: dict[str, Any]) -> None:
        """Take a whole answer, or the next event of a stream."""
        meta = answer["meta_info"]
        rid, end = meta["id"], _finish_reason(answer)
        if rid not in self._turns:
            return
        if answer["text"]:
            self._wavs.setdefault(rid, []).append(answer["text"])
        if not end:
            return
        turns, wavs = self._turns.pop(rid), self._wavs.pop(rid, [])
        if wavs and end.get("type") != "abort":

            def speech() -> np.ndarray:
                return np.concatenate([pcm_of_base64(wav) for wav in wavs])

            told = await told_turns(speech, meta["sample_rate"], turns, is_cut=end.get("type") == "length")
            answer["meta_info"] = {**meta, "turns": told}

    def forget(self, rid: str) -> None:
        """This request is over, however it ended."""
        self._turns.pop(rid, None)


class _Streams:
    """Turns what SGLang yields for streams into events; one for all streams of a call."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._first_sounds: FirstSoundMarks = manager.mm_processor.first_sounds
        self._last: dict[str, dict[str, Any]] = {}  # by request id, our part of its last `meta_info`

    def events(self, answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One event for each chunk in an answer, and one for an end without a chunk."""
        meta = answer["meta_info"]
        rid, end = meta["id"], _finish_reason(answer)
        self._forget_text(rid)
        last = self._last.get(rid, {})
        chunks: list[tuple[str, dict[str, Any]]] = []
        marks: dict[str, float] | None = None
        for wav, of_chunk in chunks_of(answer["text"]):
            if not wav:
                marks = of_chunk
                continue
            # SGLang repeats text where a request is aborted while it waits in the queue.
            if of_chunk["audio_frames"] > last.get("audio_frames", 0):
                last = self._last[rid] = of_chunk
                told = {} if marks is None else {"timings": self._first_sounds.told(rid, marks)}
                chunks.append((wav, of_chunk | told))
                marks = None
        for i, (wav, of_chunk) in enumerate(chunks):
            if i < len(chunks) - 1:
                more = {"text": wav, "output_ids": [], "meta_info": {**meta, "finish_reason": None, **of_chunk}}
            else:
                more = {"text": wav, "meta_info": {**meta, **of_chunk}}
            yield {**answer, **more}
        if end and not chunks:
            totals = {name: value for name, value in last.items() if name != "audio_codes"}
            totals["chunk_start_seconds"] = last.get("audio_seconds", 0.0)
            yield {**answer, "text": "", "meta_info": {**totals, **meta}}
        if end:
            self._last.pop(rid, None)

    def _forget_text(self, rid: str) -> None:
        """SGLang keeps all text of a stream for its end, where nothing needs it."""
        state = self._manager.rid_to_state.get(rid)
        if state is not None:
            state.text_chunks.clear()


def _show_id(request: Any, answer: dict[str, Any]) -> None:
    """Call a request what its client calls it."""
    meta = answer.get("meta_info")
    if meta:
        answer["meta_info"] = {**meta, "id": shown_ids(request).get(meta["id"], meta["id"])}


def _whole(answer: dict[str, Any]) -> dict[str, Any]:
    """Put the WAV together, and lift our part of `meta_info`, which SGLang keeps in a list, to its top level.

    Raises:
        HTTPException: the request was aborted, and this is no whole answer.
    """
    meta = answer.get("meta_info") or {}
    end = meta.get("finish_reason") or {}
    if end.get("type") == "abort":
        status = int(end.get("status_code") or HTTPStatus.SERVICE_UNAVAILABLE)
        raise HTTPException(status, end.get("message") or "the request was aborted")
    parts = meta.pop(META, None)
    if parts:
        answer["text"], ours = whole_answer(answer["text"], parts[-1])
        meta.update(ours)
    return answer


def _finish_reason(answer: dict[str, Any]) -> Any:
    return answer["meta_info"].get("finish_reason")


def _ids(request: Any) -> list[str]:
    return request.rid if isinstance(request.rid, list) else [request.rid] if request.rid else []


def _abort(manager: Any, rids: list[str], forgotten: bool) -> None:
    """Stop requests in the scheduler.

    Args:
        forgotten: SGLang has dropped its own records, as it does on an exception; else the scheduler's last message
            shall find them, and those that it will never hear of are dropped here.
    """
    for rid in rids:
        state = manager.rid_to_state.get(rid)
        if state is not None and not state.time_stats.api_server_dispatch_time:
            del manager.rid_to_state[rid]
        elif state is not None or forgotten:
            manager._dispatch_to_scheduler(AbortReq(rid=rid))


def _failures(request: Any, ended: set[str], error: MossError) -> Iterator[dict[str, Any]]:
    """A stream's last events, one for each request that an error of ours has ended."""
    reason = {
        "type": "abort",
        "message": str(error),
        "status_code": error.status,
        "err_type": type(error).__name__,
        "code": error.code,
    }
    rids = _ids(request)
    if not rids:  # refused before SGLang gave it any
        yield {"error": {"message": str(error), "type": type(error).__name__, "code": error.status}}
    for i, rid in enumerate(rids):
        if rid not in ended:
            event: dict[str, Any] = {"text": "", "output_ids": [], "meta_info": {"id": rid, "finish_reason": reason}}
            yield event if not isinstance(request.rid, list) else {**event, "index": i}
