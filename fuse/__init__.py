"""Fuse a MOSS-TTSD language model and its codec into one checkpoint."""

from .errors import FuseError
from .tool import FuseReport, fuse

__all__ = ["FuseError", "FuseReport", "fuse"]
