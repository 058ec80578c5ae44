"""A command line of `sglang serve`, read as far as it can be checked before SGLang is imported.

    sglang serve [--model-type NAME] [MODEL] [--config FILE.yaml] [--port N | --port=N | --por N] ...

What is read is what SGLang's own parser makes of it: a model in the first place, a file of further arguments that the
command line overrules, abbreviations. Whatever this does not know is left to that parser.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

FLAG = "--delay-pattern"
_BACKEND = "--model-type"  # SGLang takes it out before it looks for a model in the first place
_SUFFIXES = (".yaml", ".yml")


class NoConfigFile(ValueError):  # noqa: N818 (named for what is wrong)
    """What `--config` names cannot be read; the message says why."""


def read(argv: Sequence[str]) -> argparse.Namespace | None:
    """What a command line says of `model_path`, `host`, `port`, `node_rank`, `voices_dir`, `device`, `load_format`,
    `config` and `delay_pattern`.

    Args:
        argv: without the program.
    Returns:
        Texts, as they were given; None: it serves nothing, asks for help, or SGLang's parser will refuse it.
    Raises:
        NoConfigFile: a file of arguments is named and cannot be read.
    """
    if not argv or argv[0] != "serve":
        return None
    words = without_backend(argv[1:])
    if words and not words[0].startswith("-"):
        words = ["--model-path", *words]
    said = _parsed(words)
    if said is None or said.config is None:
        return said
    return _parsed([*arguments_of(said.config), *words])


def without_backend(words: Sequence[str]) -> list[str]:
    """Words after `serve` without `--model-type NAME`."""
    left: list[str] = []
    values = iter(words)
    for word in values:
        if word == _BACKEND:
            next(values, None)
        elif not word.startswith(f"{_BACKEND}="):
            left.append(word)
    return left


def arguments_of(path: str) -> list[str]:
    """The arguments that a file of `--config` stands for, lists left out.

    Raises:
        NoConfigFile: it cannot be read.
    """
    import yaml  # only here: few name such a file

    if Path(path).suffix.lower() not in _SUFFIXES:
        raise NoConfigFile(f"--config {path}: files of arguments are YAML, and end in .yaml or .yml")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise NoConfigFile(f"--config {path} cannot be read ({' '.join(str(error).split())})") from error
    if values is None:
        return []
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise NoConfigFile(f"--config {path}: a line of it is an argument, such as 'port: 30000'")
    flags = [f"--{name}" for name, value in values.items() if value is True]
    return flags + [f"--{name}={value}" for name, value in values.items() if not isinstance(value, bool | list)]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In every version of Python raise, also for what is short for several."""
        raise argparse.ArgumentError(None, message)


def make_parser() -> argparse.ArgumentParser:
    """Of the arguments that are read here."""
    parser = _Parser(add_help=False, exit_on_error=False)
    parser.add_argument("--model-path", "--model", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="30000")
    parser.add_argument("--node-rank", default="0")
    parser.add_argument("--voices-dir")
    parser.add_argument("--device")
    parser.add_argument("--load-format")
    parser.add_argument("--config")
    parser.add_argument(FLAG, action="store_true")
    return parser


def _parsed(words: Sequence[str]) -> argparse.Namespace | None:
    try:
        said, others = make_parser().parse_known_args(words)
    except argparse.ArgumentError:
        return None
    asks_for_help = not {"-h", "--help"}.isdisjoint(others)
    return None if asks_for_help else said
