"""What the fuse tool says when it refuses."""


class FuseError(ValueError):
    """A refusal in one sentence that names the file, what was expected, what came and what to do.

    Raised before anything is written, or after everything that was written is gone again.
    """


def listed(names: list[str], shown: int = 3) -> str:
    """The first few of many names, for a sentence that must stay one line."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
