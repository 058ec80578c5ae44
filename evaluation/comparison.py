"""Two results over the same items: what changed, by how much, and whether that could be chance."""

from dataclasses import dataclass

from .errors import CannotJudge
from .results import ItemScore, Result
from .statistics import METRICS, Difference, difference_of


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        differences: of every metric that both have.
        items: ids that both have judged.
        left_out: ids that only one of them has, or has judged.
        remarks: what was not the same in both and makes figures hard to compare.
    """

    differences: list[Difference]
    items: list[str]
    left_out: list[str]
    remarks: list[str]


def compare(a: Result, b: Result) -> Comparison:
    """Hold two runs together, item by item.

    Raises:
        CannotJudge: no common item, or an item that has another text in each.
    """
    of_a, of_b = _judged(a), _judged(b)
    common = [name for name in of_a if name in of_b]
    if not common:
        raise CannotJudge("the two results have no judged item in common: they are compared by the ids of items")
    for name in common:
        if [(t.speaker, t.text) for t in of_a[name].turns] != [(t.speaker, t.text) for t in of_b[name].turns]:
            raise CannotJudge(f"item {name!r} has another script in each result: these are not the same dataset")
    pair = [of_a[name] for name in common], [of_b[name] for name in common]
    found = [difference_of(metric, *pair) for metric in METRICS]
    everything = {item.id for item in a.items} | {item.id for item in b.items}
    return Comparison(
        [difference for difference in found if difference is not None],
        common,
        sorted(everything - set(common)),
        list(_remarks(a, b)),
    )


def _judged(result: Result) -> dict[str, ItemScore]:
    return {item.id: item for item in result.items if item.problem is None}


def _remarks(a: Result, b: Result):
    for name in ("recogniser", "recogniser_model", "embedder", "embedder_model", "aligner"):
        if a.settings.get(name) != b.settings.get(name):
            yield f"{name}: {a.settings.get(name)} and {b.settings.get(name)}"
    for name in sorted(a.versions.keys() | b.versions.keys()):
        if a.versions.get(name) != b.versions.get(name):
            yield f"version of {name}: {a.versions.get(name, 'none')} and {b.versions.get(name, 'none')}"


def table_of(comparison: Comparison, a: str = "A", b: str = "B") -> str:
    """The differences as lines of text."""
    lines = [f"{'':<30} {a[:10]:>10} {b[:10]:>10}   {'B - A [95 %]':<28} {'p':>7}"]
    for d in comparison.differences:
        interval = "" if d.low is None or d.high is None else f" [{d.low:+.4f}, {d.high:+.4f}]"
        p_value = "" if d.p_value is None else f"{d.p_value:.4f}"
        certain = {"a": "  worse", "b": "  better", None: "  the same"}
        verdict = certain[d.better] if d.is_significant or d.better is None else "  may be chance"
        change = f"{d.b - d.a:+.4f}{interval}"
        lines.append(f"{d.metric.title:<30} {d.a:>10.4f} {d.b:>10.4f}   {change:<28} {p_value:>7}{verdict}")
    lines.append(f"{len(comparison.items)} items in both, {len(comparison.left_out)} in one only")
    lines += [f"not the same in both: {remark}" for remark in comparison.remarks]
    return "\n".join(lines)
