"""Clients of a running server: a library (`MossClient`, `AsyncMossClient`) and the command line `moss-ttsd`."""

from .client import AsyncMossClient, MossClient
from .errors import ClientError, ServerRefused, ServerUnreachable, UnusableAnswer
from .request import Mode, Reference, Settings
from .speech import Speech, SpeechChunk

__all__ = [
    "AsyncMossClient",
    "ClientError",
    "Mode",
    "MossClient",
    "Reference",
    "ServerRefused",
    "ServerUnreachable",
    "Settings",
    "Speech",
    "SpeechChunk",
    "UnusableAnswer",
]
