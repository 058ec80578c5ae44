"""What preparing and reading data refuses."""

from ..errors import TrainingError


class DataError(TrainingError):
    """A dataset, an input or an argument that cannot be used; the message says why, and what to do."""


class BadRecord(DataError):  # noqa: N818 (named for what it is)
    """One record that is left out; the others go on."""
