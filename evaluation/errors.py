"""What the judge refuses; each message is a sentence that says what to do."""

from importlib import import_module
from types import ModuleType


class CannotJudge(ValueError):  # noqa: N818 (named for what it is)
    """A dataset, a clip or a choice of back ends that cannot be judged."""


class MissingPackage(CannotJudge):
    """A back end was named whose package is not installed."""


def load(module: str, needed_by: str, install: str) -> ModuleType:
    """Import a package that is not among this project's own dependencies.

    Args:
        module: its dotted name.
        needed_by: who asks, as the user named it.
        install: the command that brings it.
    Raises:
        MissingPackage: it is not there.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{needed_by} needs {error.name}, which is not installed: {install}") from None
