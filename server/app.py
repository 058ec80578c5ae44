"""Puts the routes on SGLang's own application, so that its port, its API key and its start-up are theirs."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from .engine import Engine
from .routes import speech_router, voice_router
from .voices import VoiceStore

_DEFAULT_VOICES_DIR = "~/.cache/sglang-moss/voices"


def add_routes(app: FastAPI, server_args: Any, tokenizer_manager: Any) -> None:
    """Serve `/v1/audio/speech` and `/v1/audio/voices` on `app`.

    Args:
        app: SGLang's application, before it starts.
        server_args: `MossServerArgs`.
        tokenizer_manager: SGLang's.
    Raises:
        SystemExit: the voices' folder cannot be used; a server that starts keeps voices.
    """
    folder = Path(server_args.voices_dir or _DEFAULT_VOICES_DIR).expanduser()
    try:
        store = VoiceStore(folder, server_args.max_voices)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        raise SystemExit(
            f"sglang_moss: no voices can be kept in {folder} ({error}); name a folder with --voices-dir"
        ) from error
    engine = Engine(tokenizer_manager)
    app.include_router(speech_router(engine, store))
    app.include_router(voice_router(engine, store))
