"""`moss-ttsd podcast`: a web page, PDF or text to a conversation about it."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..podcast_script import checked_script, script_request
from ..podcast_source import MAX_CHARS, read_source
from ..podcast_writer import ask_writer
from ..request import Reference
from .grouping import grouped
from .options import Seed, Server, VoiceNames, failures_in_one_line, voices_by_speaker
from .speaking import Outlet

EPILOG = """Examples:

moss-ttsd podcast https://example.com/article -o talk.mp3 --voice S1=alice --voice S2=bob

moss-ttsd podcast paper.pdf --script-only --language zh --minutes 5 > script.txt

moss-ttsd say --file script.txt -o talk.mp3
"""
_LLM = "Language model that writes the script (any with OpenAI's API)"


@grouped
def podcast(
    source: Annotated[
        str, typer.Argument(help="http(s) URL, or a PDF, HTML, Markdown or text file.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, as in `moss-ttsd say`.", show_default=False),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it while it comes.")] = False,
    script_only: Annotated[bool, typer.Option("--script-only", help="Print the script and do not speak it.")] = False,
    save_script: Annotated[Path | None, typer.Option(help="Keep the script in this file.", show_default=False)] = None,
    minutes: Annotated[float, typer.Option(help="Length of the talk, about.", min=0.5, max=60)] = 3,
    language: Annotated[str, typer.Option(help="Such as en or zh.", show_default="that of the source")] = "",
    speakers: Annotated[int, typer.Option(help="How many talk.", min=1, max=5)] = 2,
    voice: VoiceNames = None,
    llm_model: Annotated[
        str, typer.Option(envvar="MOSS_LLM_MODEL", help="Its name.", show_default=False, rich_help_panel=_LLM)
    ] = "",
    llm_url: Annotated[
        str | None,
        typer.Option(
            envvar="MOSS_LLM_BASE_URL",
            help="Its address, such as http://127.0.0.1:8000/v1.",
            show_default="OPENAI_BASE_URL, or OpenAI's",
            rich_help_panel=_LLM,
        ),
    ] = None,
    llm_api_key: Annotated[
        str | None,
        typer.Option(
            envvar="MOSS_LLM_API_KEY",
            help="Its key.",
            show_default="OPENAI_API_KEY, unless an address is named here",
            rich_help_panel=_LLM,
        ),
    ] = None,
    seed: Seed = None,
    *,
    server: Server,
) -> None:
    """Make a talk about a web page, a PDF or a text.

    A language model writes the script, which is checked, and the server speaks it. Needs the extra `podcast` of this
    package.
    """
    if not llm_model:
        raise typer.BadParameter("name the language model, also as MOSS_LLM_MODEL", param_hint="--llm-model")
    with failures_in_one_line():
        outlet = None if script_only else Outlet(output, play)
        voices = voices_by_speaker(voice, [])
        if outlet is not None:
            _check_voices(voices, server)  # before a language model is paid for
        text = _read(source)
        if len(text) == MAX_CHARS:
            typer.echo(f"only the first {MAX_CHARS} characters of {source} are used", err=True)
        answer = _ask(script_request(text, minutes, language, speakers), llm_model, llm_url, llm_api_key)
        script = checked_script(answer, minutes, speakers)
        if save_script is not None:
            save_script.write_text(script + "\n", encoding="utf-8")
        if outlet is None:
            typer.echo(script)
            return
        with server.client() as client:
            outlet.take(client.speech(script, voices, seed=seed))


def _check_voices(voices: dict[int, str | Reference], server: Server) -> None:
    """Raises ClientError where the server is away, or does not know a voice."""
    with server.client() as client:
        client.voices()
        for name in voices.values():
            if isinstance(name, str) and name != "default":
                client.voice(name)


def _read(source: str) -> str:
    try:
        return read_source(source)
    except ModuleNotFoundError as error:
        raise _missing(error) from error


def _ask(messages: list[Any], model: str, url: str | None, api_key: str | None) -> str:
    """The language model's answer."""
    if url is None:  # OpenAI's key goes nowhere else
        url = os.environ.get("OPENAI_BASE_URL") or None
        api_key = api_key or os.environ.get("OPENAI_API_KEY") or None
    if url is None and api_key is None:
        raise ValueError("where is the language model? Set MOSS_LLM_BASE_URL, MOSS_LLM_API_KEY, or both")
    try:
        return asyncio.run(ask_writer(messages, model, url, api_key))
    except ModuleNotFoundError as error:
        raise _missing(error) from error


def _missing(error: ModuleNotFoundError) -> ValueError:
    return ValueError(f"{error.name} is not installed: pip install 'sglang-moss[podcast]'")
