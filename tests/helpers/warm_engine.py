"""Answers of an engine that starts warm, in a process of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fresh_process import in_fresh_process

from sglang_moss.benchmarks.reference.rows_engine import RowsAnswer, RowsEngine
from sglang_moss.request.prompt import SpeechPrompt


def asked(path: Path, *rounds: Sequence[dict[str, Any]], **engine_args: Any) -> list[list[RowsAnswer]]:
    """Answers to rounds of requests, one round after the other, the requests of a round at once."""
    return in_fresh_process(_ask, path, rounds, engine_args)


def generated(
    path: Path, prompts: Sequence[SpeechPrompt], settings: Sequence[dict[str, Any]], **engine_args: Any
) -> list[RowsAnswer]:
    """Answers to prompts, all at once."""
    return in_fresh_process(_generate, path, prompts, settings, engine_args)


def _ask(path: Path, rounds: Sequence[Sequence[dict[str, Any]]], engine_args: dict[str, Any]) -> list[list[RowsAnswer]]:
    with RowsEngine(str(path), **engine_args) as engine:
        return [engine.ask(requests) for requests in rounds]


def _generate(
    path: Path, prompts: Sequence[SpeechPrompt], settings: Sequence[dict[str, Any]], engine_args: dict[str, Any]
) -> list[RowsAnswer]:
    with RowsEngine(str(path), **engine_args) as engine:
        return engine.generate(prompts, settings)
