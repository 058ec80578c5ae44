"""Numbers and flags that somebody else has written, by name: of the right type, within their bounds, or refused.

All raise BadSetting, with a sentence that names the field.
"""

from collections.abc import Mapping
from typing import Any

from sglang_moss.errors import BadSetting

_GREEDY_BELOW = 1e-6  # as in the served path; logits over much less overflow float32


def temperature(params: Mapping[str, Any], name: str, default: float) -> float:
    """0 is greedy."""
    value = number(params, name, default, low=0.0, high=100.0)
    return value if value >= _GREEDY_BELOW else 0.0


def number(
    params: Mapping[str, Any], name: str, default: float, *, low: float, high: float, low_open: bool = False
) -> float:
    """From `low` to `high`; `low_open`: not `low` itself."""
    value = params.get(name, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (low_open and value == low):
        raise BadSetting(f"{name} must be a number in {'(' if low_open else '['}{low:g}, {high:g}], got {shown(value)}")
    return float(value)


def repetition_penalty(params: Mapping[str, Any], default: float) -> float:
    """1 is off."""
    return number(params, "repetition_penalty", default, low=0.01, high=2.0)


def integer(params: Mapping[str, Any], name: str, *, low: int, high: int = 2**31 - 1) -> int | None:
    """None where it is not there."""
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadSetting(f"{name} must be an integer in [{low}, {high}], got {shown(value)}")
    return value


def top_k(params: Mapping[str, Any], name: str, default: int) -> int:
    """-1 is off."""
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or (value != -1 and not 1 <= value < 2**31):
        raise BadSetting(f"{name} must be -1 (off) or an integer of at least 1, got {shown(value)}")
    return value


def flag(params: Mapping[str, Any], name: str) -> bool:
    """False where it is not there."""
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise BadSetting(f"{name} must be true or false, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """A value as a sentence quotes it."""
    return repr(value)[:64]
