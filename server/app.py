"""Puts the routes on SGLang's own application, so that its port, its API key and its start-up are theirs."""

import warnings
from asyncio import Event
from typing import Any

import fastapi
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import FastAPIDeprecationWarning, RequestValidationError
from fastapi.responses import JSONResponse
from sglang.srt.managers.io_struct import GenerateReqInput
from sglang.srt.managers.tokenizer_manager import ReqState
from sglang.srt.observability.req_time_stats import APIServerReqTimeStats
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from sglang_moss.decode.wakeup import switch_soon
from sglang_moss.early_checks import no_voices, voices_folder
from sglang_moss.hooking import check_fields
from sglang_moss.hooks import PRIVATE_FIELDS
from sglang_moss.request.text import MAX_SPEAKERS

from . import cors, heap, http_protocol, json_body
from .api_pages import ApiPages
from .errors import error_for, error_status
from .gate import http_labels
from .gate.access_log import AccessLog, write_access_log
from .gate.admission import Admission
from .gate.gate import Gate, Limits
from .gate.health import CodecHealth
from .gate.metrics import SpeechMetrics
from .gate.paths import GENERATE, START_PROFILE
from .gate.rate_limit import RateLimit
from .gate.shutdown import GracefulShutdown
from .generate import serve_generate
from .head import HeadAsGet
from .page.encode import encode_router
from .page.helpers import helper_routers
from .page.page import Page
from .page.turns import turns_router
from .speech.routes import profile_router, speech_router, voice_router
from .speech.sessions import Engine
from .speech.starter_voices import read_starters, starters_folder
from .speech.voice_names import VoiceNames
from .speech.voice_store import VoiceStore
from .step_profiles import serve_step_profiles

_BODY_MARGIN = 4_000_000  # bytes of a body besides its audio files
_LARGEST_BODIES = 16  # as many of the largest size may be in the server at a time, or hundreds of usual ones
_HEALTH_TIMEOUT_SECONDS = 20.0  # as SGLang's own


def add_routes(app: FastAPI, server_args: Any, tokenizer_manager: Any) -> None:
    """Serve `/v1/audio/speech`, `/v1/audio/voices` and the page on `app`, and watch over all of its requests.

    Args:
        app: SGLang's application, before it starts.
        server_args: `MossServerArgs`.
        tokenizer_manager: SGLang's.
    Raises:
        SystemExit: the voices' folder cannot be used; a server that starts keeps voices.
    """
    # SGLang's refusals are such; nobody who reads the log can do anything about it.
    warnings.filterwarnings("ignore", "ORJSONResponse is deprecated", FastAPIDeprecationWarning)
    switch_soon()  # the event loop, and threads that requests pass through
    _check_fields(app, tokenizer_manager)
    folder = voices_folder(server_args.voices_dir)
    try:
        names = VoiceNames.of(server_args.voice_alias or (), server_args.default_voice)
        starters = read_starters(starters_folder(server_args.starter_voices), server_args.reference_limits)
        store = VoiceStore(folder, server_args.max_voices, names, starters)
    except ValueError as error:
        raise SystemExit(f"sglang_moss: {error}") from error
    except OSError as error:
        raise no_voices(folder, error) from error
    engine = Engine(tokenizer_manager, GenerateReqInput)
    # Of SGLang's own, ours take the place.
    app.router.routes[:] = [r for r in app.router.routes if getattr(r, "path", None) not in (GENERATE, START_PROFILE)]
    serve_generate(app, engine.profile)
    serve_step_profiles(app, tokenizer_manager)
    http_protocol.install()
    heap.keep_freed_memory()
    json_body.remember_at_most(server_args.reference_cache_mb * 1_000_000)
    app.include_router(speech_router(engine, store, streams=not server_args.whole_answers))
    helpers = helper_routers(server_args, engine.profile)
    app.include_router(profile_router(engine, [name for names in helpers for name in names]))
    app.include_router(voice_router(engine, store))
    app.include_router(encode_router())
    app.include_router(turns_router())
    for router in helpers.values():
        app.include_router(router)
    for kind in (RequestValidationError, HTTPException, fastapi.HTTPException, Exception):
        app.add_exception_handler(kind, _refused)
    _watch_over(app, server_args, tokenizer_manager, engine)


def _check_fields(app: FastAPI, tokenizer_manager: Any) -> None:
    state = ReqState([], False, Event(), GenerateReqInput(), APIServerReqTimeStats())
    found = {"FastAPI": app, "TokenizerManager": tokenizer_manager, "ReqState": state}
    check_fields(PRIVATE_FIELDS, {**found, "HttpToolsProtocol": http_protocol.a_connection()})


async def _refused(request: Request, error: Exception) -> Response:
    """What a route of SGLang's refuses or fails of, in the shape of all others; it repeats nothing of the body."""
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse(error_for(request.scope, error), error_status(error), headers)


def _watch_over(app: FastAPI, server_args: Any, tokenizer_manager: Any, engine: Engine) -> None:
    """Log and metrics around everything, then whatever the application has (API key, CORS), then the gate."""
    rate_limit = None if server_args.rate_limit is None else RateLimit(server_args.rate_limit)
    clip_bytes = engine.limits.max_bytes
    body_bytes = server_args.max_request_bytes or MAX_SPEAKERS * (clip_bytes * 4 // 3 + 4) + _BODY_MARGIN
    n_places = server_args.dp_size * server_args.max_running_requests + server_args.max_queued_speech
    admission = Admission(n_places, max_bytes=_LARGEST_BODIES * body_bytes)
    limits = Limits(
        body_bytes=body_bytes,
        voice_bytes=clip_bytes + _BODY_MARGIN,
        body_seconds=server_args.request_body_seconds,
    )
    app.user_middleware += [
        Middleware(Gate, admission, rate_limit, limits, server_args.admin_api_key),
        Middleware(CodecHealth, server_args.codec_addresses, _HEALTH_TIMEOUT_SECONDS),
        Middleware(HeadAsGet),
    ]
    metrics = SpeechMetrics(server_args.served_model_name) if server_args.enable_metrics else None
    writes_log = server_args.access_log == "json"
    if writes_log:
        write_access_log()
    build = app.build_middleware_stack  # what is added to the application later would stand around ours

    def build_all() -> AccessLog:
        if server_args.enable_metrics:
            http_labels.bound(app)
        cors.put_outermost(app)
        return AccessLog(Page(ApiPages(build(), app)), metrics, writes_log)

    app.build_middleware_stack = build_all
    tokenizer_manager.signal_handler_class = lambda manager: GracefulShutdown(
        manager, admission, server_args.shutdown_seconds
    )
