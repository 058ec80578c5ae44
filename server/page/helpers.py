"""What the page can do beside speaking, by the server's arguments: each is a route that is there or is not.

argument                                 key                   offers
--design-url                             MOSS_VOICE_API_KEY    design, a voice from its description
"""

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sglang_moss.request.profile import Profile

if TYPE_CHECKING:  # arguments are checked in every process
    from fastapi import APIRouter


def check_helpers(server_args: Any) -> None:
    """Refuse what cannot work, before anything is loaded.

    Raises:
        ValueError: the sentence names the argument.
    """
    for name in ("design_url",):
        if (value := getattr(server_args, name)) is not None:
            _check_url(value, f"--{name.replace('_', '-')}")


def helper_routers(server_args: Any, profile: Profile) -> "dict[str, APIRouter]":
    """Routers by what they offer, see `ProfileAnswer.offers`.

    Args:
        server_args: have passed `check_helpers`.
        profile: of the model that is served.
    """
    routers: "dict[str, APIRouter]" = {}
    if server_args.design_url is not None and profile.max_references:
        from .design import design_router

        routers["design"] = design_router(server_args.design_url, os.environ.get("MOSS_VOICE_API_KEY") or None)
    return routers


def _check_url(value: str, argument: str) -> None:
    try:
        url = urlsplit(value)
        is_url = url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(f"{argument} is no http(s) address, got {value!r}; name one such as http://127.0.0.1:30001")
