"""Reading settings: a YAML file, and what the command line says over it; every unknown key is refused by name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from .config import TrainConfig
from .errors import TrainingError

_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # a number that YAML takes for a word


def read_config(path: str | Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """A run's settings.

    Args:
        path: YAML file, or None.
        overrides: `key=value`, `--key=value` or `--key value`; a key is `optimizer.rate`, or its last part where no
            other key ends in it. The value is YAML.
    Raises:
        TrainingError: a key is unknown or missing, or a value is not what it takes.
    """
    content = {} if path is None else read_yaml(path)
    for key, value in read_overrides(overrides):
        put(content, key, value)
    return config_of(content)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Keys and values of a file.

    Raises:
        TrainingError: it is missing, or something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise TrainingError(f"{path}: there is no such file of settings") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content


def config_of(content: Mapping[str, Any]) -> TrainConfig:
    """Settings from keys and values.

    Raises:
        TrainingError: as `read_config`.
    """
    try:
        return TypeAdapter(TrainConfig).validate_python(_tuples(content))
    except ValidationError as error:
        raise TrainingError("; ".join(map(_problem, error.errors()))) from None


def all_keys(of: Any = TrainConfig, prefix: str = "") -> list[str]:
    """Every key by its whole name, sections left out."""
    keys = []
    for entry in fields(of):
        factory = entry.default_factory
        if is_dataclass(factory):
            keys += all_keys(factory, f"{prefix}{entry.name}.")
        else:
            keys.append(prefix + entry.name)
    return keys


def read_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys by their whole names, and values, of command-line words.

    Raises:
        TrainingError: a word is no `key=value`, or its key is unknown.
    """
    read: list[tuple[str, Any]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=")
        if not equals and not word.startswith("--"):
            raise TrainingError(f"expected key=value or --key value, got {word!r}")
        key = _whole_key(name)
        if not equals:
            is_flag = not rest or rest[0].startswith("--") or ("=" in rest[0] and _is_key(rest[0].partition("=")[0]))
            text = "true" if is_flag else rest.pop(0)
        try:
            read.append((key, _number(yaml.safe_load(text))))
        except yaml.YAMLError:
            read.append((key, text))
    return read


def _whole_key(name: str) -> str:
    wanted = name.removeprefix("--").replace("-", "_")
    known = all_keys()
    if wanted in known:
        return wanted
    flat = [key for key in known if key.replace(".", "_") == wanted or key.rpartition(".")[2] == wanted]
    if len(flat) == 1:
        return flat[0]
    raise TrainingError(f"unknown key {name!r}: " + (f"it may be {', '.join(flat)}" if flat else _nearest(wanted)))


def _nearest(key: str) -> str:
    """What a key may have been meant for."""
    sections = {key.partition(".")[0] for key in all_keys()}
    known = {name: name for name in (*sections, *all_keys())} | {name.rpartition(".")[2]: name for name in all_keys()}
    near = [known[name] for name in get_close_matches(key, known)]
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(all_keys())}"


def _is_key(name: str) -> bool:
    try:
        return bool(_whole_key(name))
    except TrainingError:
        return False


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a key by its whole name in nested sections.

    Raises:
        TrainingError: what should be a section is a value.
    """
    *sections, name = key.split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise TrainingError(f"{section}: expected keys and values, got {inner!r}")
        content = inner
    content[name] = value


def _tuples(value: Any) -> Any:
    """Lists as tuples, and numbers such as 1e-4 as numbers."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return _number(value)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _problem(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"] if not str(part)[:1].isupper())
    match error["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return f"unknown key {key!r}: {_nearest(key)}"
        case "missing" if isinstance(error["loc"][-1], int):
            return f"{key.rpartition('.')[0]}: expected more than {error['loc'][-1]} values"
        case "dataclass_type":
            return f"{key}: expected keys and values, got {error['input']!r}"
        case "missing":
            return f"the key {key!r} is missing: say {key}=..."
    return f"{key}: {error['msg'][:1].lower()}{error['msg'][1:]}, got {error['input']!r}"
