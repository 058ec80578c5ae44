"""What the page can do beside speaking, by the server's arguments: each is a route that is there or is not.

argument                                 key                   offers
--design-url                             MOSS_VOICE_API_KEY    design, a voice from its description
--script-llm-url, --script-llm-model     MOSS_LLM_API_KEY      script, of a talk about a web page or a document
--transcript-recogniser, -model                                transcript-en, transcript-zh, drafted of a clip
"""

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sglang_moss.request.profile import Profile

if TYPE_CHECKING:  # arguments are checked in every process
    from fastapi import APIRouter

_PODCAST = ("openai", "pypdf", "trafilatura")
_AUTO, _NONE = "auto", "none"
_USUAL_RECOGNISER = "pocketsphinx"  # it has its weights in its package


def check_helpers(server_args: Any) -> None:
    """Refuse what cannot work, before anything is loaded.

    Raises:
        ValueError: the sentence names the argument.
    """
    for name in ("design_url", "script_llm_url"):
        if (value := getattr(server_args, name)) is not None:
            _check_url(value, f"--{name.replace('_', '-')}")
    if (server_args.script_llm_url is None) != (server_args.script_llm_model is None):
        raise ValueError("--script-llm-url and --script-llm-model go together: name both, or none")
    if server_args.script_llm_url is not None and (missing := [name for name in _PODCAST if find_spec(name) is None]):
        raise ValueError(f"--script-llm-url needs {missing[0]}: pip install 'sglang-moss[podcast]'")
    _check_recogniser(server_args.transcript_recogniser, server_args.transcript_model)


def helper_routers(server_args: Any, profile: Profile) -> "dict[tuple[str, ...], APIRouter]":
    """Routers by what they offer, see `ProfileAnswer.offers`.

    Args:
        server_args: have passed `check_helpers`.
        profile: of the model that is served.
    """
    routers: dict[tuple[str, ...], APIRouter] = {}
    if server_args.design_url is not None and profile.max_references:
        from .design import design_router

        routers["design",] = design_router(server_args.design_url, os.environ.get("MOSS_VOICE_API_KEY") or None)
    if server_args.script_llm_url is not None and profile.is_dialogue:
        from .script import LanguageModel, script_router

        key = os.environ.get("MOSS_LLM_API_KEY") or None
        writer = LanguageModel(server_args.script_llm_url, server_args.script_llm_model, key)
        routers["script",] = script_router(writer, allow_private_urls=server_args.allow_private_reference_urls)
    recogniser = _recogniser(server_args.transcript_recogniser)
    if recogniser is not None and profile.max_references:
        from ...evaluation.recognisers import languages_of
        from .transcript import transcript_router

        languages = languages_of(recogniser)
        offers = tuple(f"transcript-{language}" for language in sorted(languages))
        routers[offers] = transcript_router(recogniser, server_args.transcript_model, languages)
    return routers


def _check_url(value: str, argument: str) -> None:
    try:
        url = urlsplit(value)
        is_url = url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(f"{argument} is no http(s) address, got {value!r}; name one such as http://127.0.0.1:30001")


def _recogniser(named: str) -> str | None:
    """The recogniser that is meant; None: none."""
    if named == _NONE:
        return None
    if named != _AUTO:
        return named
    return _USUAL_RECOGNISER if find_spec(_USUAL_RECOGNISER) is not None else None


def _check_recogniser(named: str, model: str | None) -> None:
    if named in (_AUTO, _NONE, _USUAL_RECOGNISER):
        if model is not None:
            raise ValueError(f"--transcript-model: {named} takes none; name a --transcript-recogniser that does")
        if named == _USUAL_RECOGNISER and find_spec(named) is None:
            raise ValueError(f"--transcript-recogniser {named} is not installed: pip install 'sglang-moss[eval]'")
        return
    from ...evaluation.recognisers import is_installed

    if not is_installed(named):
        raise ValueError(f"--transcript-recogniser {named} is not installed: pip install 'sglang-moss[whisper]'")
    if model is None:
        raise ValueError(f"--transcript-recogniser {named} needs --transcript-model: a folder, or a name to download")
