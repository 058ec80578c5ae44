"""Learning rate over the steps of a run, as a share of the highest.

    linear     up over the warm-up, then straight down to the last step
    cosine     up, then half a cosine down
    wsd        up, level, and straight down over the last part
    constant   up, then level

Source: `get_linear_schedule_with_warmup` and its siblings in transformers, which upstream trains with.
"""

import math

SCHEDULES = ("linear", "cosine", "wsd", "constant")


def rate_share(
    schedule: str, step: int, n_warmup: int, n_steps: int, *, n_decay: int = 0, lowest: float = 0.0
) -> float:
    """Share of the highest learning rate at one optimizer step.

    Args:
        schedule: one of `SCHEDULES`.
        step: steps done before; 0 has a share of 0 where there is a warm-up.
        n_warmup: steps until the share is 1.
        n_steps: steps of the run.
        n_decay: last steps of `wsd`, over which it falls.
        lowest: share that is reached in the end; the falling part ends there.
    """
    if step < n_warmup:
        return step / n_warmup
    if schedule == "constant":
        return 1.0
    first = max(n_steps - n_decay, n_warmup) if schedule == "wsd" else n_warmup
    done = min(max(step - first, 0) / max(n_steps - first, 1), 1.0)
    falling = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return lowest + (1 - lowest) * falling


def shifted_rate_share(
    schedule: str, step: int, n_warmup: int, n_steps: int, *, n_decay: int = 0, lowest: float = 0.0
) -> float:
    """The same without the step of upstream's that learns nothing, the first: every step's share is above 0."""
    return rate_share(schedule, step + 1, n_warmup + 1, n_steps + 1, n_decay=n_decay, lowest=lowest)
