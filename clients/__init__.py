"""Clients of a running server: a library (`MossClient`, `AsyncMossClient`) and the command line `moss-ttsd`."""

from .async_client import AsyncMossClient
from .client import MossClient
from .errors import ClientError, ServerRefused, ServerUnreachable, UnusableAnswer
from .profile import ServerProfile
from .request import Mode, Reference, Settings
from .speech import Speech, SpeechChunk
from .speech_request import SpeechSettings
from .turns import SpokenTurn
from .voices import Voice

__all__ = [
    "AsyncMossClient",
    "ClientError",
    "Mode",
    "MossClient",
    "Reference",
    "ServerProfile",
    "ServerRefused",
    "ServerUnreachable",
    "Settings",
    "Speech",
    "SpeechChunk",
    "SpeechSettings",
    "SpokenTurn",
    "UnusableAnswer",
    "Voice",
]
