"""How hooks are installed, counted, and found wanting: what `hooks` says in its tables, this holds SGLang to.

A hook fails open where its target is still there but is no longer called: nothing raises, and what the hook was for is
gone. So every run is counted, and the warm-up request (`warmup`) stops a server in which one has not run.
"""

import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sglang_moss import TESTED_SGLANG

HTTP, SCHEDULER = "HTTP", "scheduler"  # the processes of a server


@dataclass(frozen=True)
class Hook:
    """One hook."""

    target: str  # dotted path in SGLang
    kind: HookType
    body: Callable[..., Any]
    why: str  # what breaks without it
    remove_when: str  # the upstream change that makes it dead code
    process: str  # where a warm-up request makes it run
    at_start: bool = False  # it runs before any request does


@dataclass(frozen=True)
class PrivateFields:
    """Attributes of SGLang's that we read or write past its public interface."""

    owner: str  # SGLang's class
    names: tuple[str, ...]  # of attributes, dotted where one holds the next
    why: str


_runs: Counter[str] = Counter()  # of this process, by target


def install(hooks: Iterable[Hook]) -> None:
    """Apply every hook.

    Raises:
        SystemExit: a target is absent, or was patched by somebody else before; SGLang alone would only log that.
    """
    hooks = tuple(hooks)
    taken = [hook.target for hook in hooks if hook.target in HookRegistry._patched]
    for hook in hooks:
        HookRegistry.register(hook.target, _counted(hook), hook.kind)
    HookRegistry.apply_hooks()
    absent = [hook.target for hook in hooks if hook.target not in HookRegistry._patched]
    if taken or absent:
        raise SystemExit(
            f"sglang_moss: hooks do not fit this SGLang: patched before {taken}, not found {absent}; "
            f"tested with {TESTED_SGLANG}"
        )


def _counted(hook: Hook) -> Callable[..., Any]:
    """The hook's body, counting its runs."""

    @functools.wraps(hook.body)
    def run(*args: Any, **kwargs: Any) -> Any:
        _runs[hook.target] += 1
        return hook.body(*args, **kwargs)

    return run


def runs() -> dict[str, int]:
    """How often each hook has run in this process, by target."""
    return dict(_runs)


def unused(hooks: Iterable[Hook], runs_by_process: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Targets of hooks that have not run in the process where they must."""
    return [hook.target for hook in hooks if not runs_by_process[hook.process].get(hook.target)]


def passed_by(*targets: str) -> str:
    """The sentence for hooks that SGLang goes round."""
    return f"sglang_moss: SGLang has not called {', '.join(targets)}; tested with {TESTED_SGLANG}"


def missing_fields(table: Iterable[PrivateFields], instances: Mapping[str, Any]) -> list[str]:
    """What of `table` the `instances`, by their owner's name in it, do not have: "owner.name" each."""

    def has(instance: Any, name: str) -> bool:
        try:
            operator.attrgetter(name)(instance)
        except AttributeError:
            return False
        return True

    return [
        f"{entry.owner}.{name}"
        for entry in table
        if entry.owner in instances
        for name in entry.names
        if not has(instances[entry.owner], name)
    ]


def check_fields(table: Iterable[PrivateFields], instances: Mapping[str, Any]) -> None:
    """Stop a process whose SGLang has not what we reach for.

    Args:
        instances: what there is to look at, by the name of its owner in the table.
    Raises:
        RuntimeError: names what is missing.
    """
    missing = missing_fields(table, instances)
    if missing:
        raise RuntimeError(
            f"sglang_moss: this SGLang has no {', '.join(missing)}, which is relied upon; tested with {TESTED_SGLANG}"
        )
