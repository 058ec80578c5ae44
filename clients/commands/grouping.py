"""Options that belong together: declared once as a dataclass, taken by a command as one value, given one by one."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command as `typer` is to see it: a parameter that is a dataclass becomes a parameter for each of its fields.

    Raises:
        ValueError: two parameters would have one name.
    """
    groups: dict[str, Any] = {}
    spread: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            spread += signature(parameter.annotation).parameters.values()
        else:
            spread.append(parameter)

    @wraps(command)
    def gathering(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    shown: Any = gathering
    shown.__signature__ = Signature([parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in spread])
    shown.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return gathering
