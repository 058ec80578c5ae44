"""Lines of a release's run as tables: what was compared, and what was timed."""

from collections.abc import Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]
_COMPARED_BY = {"equal", "max_error", "differ"}  # a line that compares has one of them
_COMPARED = (
    ("benchmark", "benchmark"),
    ("check", "check"),
    ("dtype", "dtype"),
    ("tp_size", "tp"),
    ("page_size", "page"),
    ("equal", "equal"),
    ("of", "of"),
    ("max_error", "max error"),
    ("rms_error", "rms error"),
    ("wav_max_error", "sample error"),
    ("decisions", "decisions"),
    ("differ", "differ"),
    ("largest_margin_that_differs", "up to margin"),
    ("cached_rows", "cached rows"),
    ("retractions", "retractions"),
    ("failed", "failed"),
)
_TIMED = (
    ("benchmark", "benchmark"),
    ("label", "setting"),
    ("workload", "workload"),
    ("spread", "spread"),
    ("stream", "stream"),
    ("uncached_references", "uncached"),
    ("tp_size", "tp"),
    ("dp_size", "dp"),
    ("n_servers", "servers"),
    ("quantization", "quantization"),
    ("concurrency", "at once"),
    ("rate", "requests/s"),
    ("offered_listeners", "offered"),
    ("listeners", "listeners"),
    ("kept", "promise kept"),
    ("audio_s_per_s", "audio-s/s"),
    ("over_one_card", "of one card"),
    ("over_one_card_as_loaded", "as loaded"),
    ("cached_tokens", "cached rows"),
    ("engine_ratio", "of engine"),
    ("engine_decode_ratio", "of decode"),
    ("ttfa_ms_p50", "first audio ms"),
    ("ttfa_ms_p95", "p95"),
    ("rtf_p50", "RTF"),
    ("gapless_share", "gapless"),
    ("n_failed", "failed"),
    ("gpu_memory_mib", "GPU MiB"),
)


def tables(lines: Sequence[Line]) -> str:
    """What was compared, then what was timed, each if there is any."""
    compared = [line for line in lines if _COMPARED_BY & line.keys()]
    timed = [line for line in lines if "audio_s_per_s" in line]
    parts = [table(found, columns) for found, columns in ((compared, _COMPARED), (timed, _TIMED)) if found]
    return "\n\n".join(parts)


def table(lines: Sequence[Line], columns: Sequence[tuple[str, str]]) -> str:
    """Aligned columns, without those that no line has."""
    kept = [(key, title) for key, title in columns if any(line.get(key) is not None for line in lines)]
    rows = [[title for _, title in kept]]
    rows += [[_shown(line.get(key)) for key, _ in kept] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
