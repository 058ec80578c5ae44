"""Who of the running requests must have a row now, and who can sit a step out: the rule, on plain figures.

A stream is in need until its first sound has left, and whenever its listener would soon run dry. While nobody is,
everybody gets a row, for that makes the most audio. While somebody is, and more run than a step shall have, those who
are not in need fill what the others leave, whoever is due first: a stream when its listener runs dry, a whole answer as
if somebody had begun to listen to it some seconds after its first row. So whole answers stand back behind streams, but
never fall behind real time for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sglang_moss.request.speech import SpeechProgress

# What a stream must be ahead to sit out: the chunk that fills when it runs again, at the pace of a busy card, and then
# its way through the codec and to the client, beside prompts that are prefilled in between.
_ROW_S = 0.03
_MARGIN_S = 1.0
_WHOLE_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Need:
    """Of one request: when its audio is due, in seconds of `time.monotonic`, and whether it may not sit out."""

    due: float
    is_pressing: bool


def need_of(progress: SpeechProgress, is_live: bool, now: float, frame_seconds: float) -> Need:
    """What a request needs; one that `is_live` is heard while it is made."""
    if not is_live:
        due = progress.began + _WHOLE_PATIENCE_S + len(progress.rows) * frame_seconds
        return Need(due, is_pressing=due < now)
    if progress.heard_until is None:
        return Need(progress.began, is_pressing=True)
    least_s = _MARGIN_S + _ROW_S * progress.request.options.chunk_frames
    return Need(progress.heard_until, is_pressing=progress.heard_until - now < least_s)


def sitting_out(needs: Sequence[Need | None], most: int) -> set[int]:
    """Indices of the requests that get no row in this step.

    Args:
        needs: of the running requests; None: one that has to run.
        most: requests that a step shall have while somebody is in need; those in need run however many they are.
    """
    if len(needs) <= most:
        return set()
    can_wait = [i for i, need in enumerate(needs) if need is not None and not need.is_pressing]
    if not any(need is not None and need.is_pressing for need in needs):
        return set()
    n_others = len(needs) - len(can_wait)
    can_wait.sort(key=lambda i: _due(needs[i]))
    return set(can_wait[max(0, most - n_others) :])


def _due(need: Need | None) -> float:
    assert need is not None
    return need.due
