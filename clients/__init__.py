"""Clients of a running server: a Python library (`MossClient`) and the command line `moss-ttsd`."""

from .client import MossClient
from .errors import ClientError, ServerRefused, ServerUnreachable, UnusableAnswer
from .request import Mode, Reference, Settings
from .speech import Speech

__all__ = [
    "ClientError",
    "Mode",
    "MossClient",
    "Reference",
    "ServerRefused",
    "ServerUnreachable",
    "Settings",
    "Speech",
    "UnusableAnswer",
]
