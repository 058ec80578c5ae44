"""What a run is: its input and every argument that decides what comes out, written down before it begins.

A run goes on, and a finished one is left as it is, only where all of that is the same.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import DataError
from .inputs import InputDigest
from .reading import Normalizer

# Of each field, what a user changed if it differs.
_NAMED = {
    "format_version": "the version of this program",
    "inputs": "--jsonl, or what is in it",
    "codec_sha256": "the codec's weights",
    "tokenizer_sha256": "the tokenizer of --model-path",
    "n_vq": "n_vq of --model-path",
    "base_dir": "--base-dir",
    "normalizer": "--normalize",
    "template": "--template",
    "max_rows": "--max-rows",
    "max_pace": "--max-pace",
    "ignore_unknown": "--ignore-unknown",
}


@dataclass(frozen=True)
class Plan:
    """See above; paths of input are known by name and content, so that a folder may be moved."""

    format_version: int
    inputs: list[InputDigest]
    codec_sha256: str
    tokenizer_sha256: str
    n_vq: int
    base_dir: str | None
    normalizer: Normalizer
    template: str
    max_rows: int
    max_pace: float
    ignore_unknown: bool

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def require_same(self, path: Path, directory: Path) -> None:
        """Refuse to go on with another run.

        Args:
            path: a plan as `to_json` wrote it.
        Raises:
            DataError: it differs; the message names in what.
        """
        try:
            written: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            written = None
        if not isinstance(written, Mapping):
            raise DataError(f"{path} is missing or damaged: begin again with --overwrite")
        ours = json.loads(self.to_json())
        changed = [_NAMED[f.name] for f in fields(self) if written.get(f.name) != ours[f.name]]
        if changed:
            raise DataError(
                f"{directory} was begun with something else: {', '.join(changed)}. Name another --output-dir, repeat "
                "the arguments of before, or begin again with --overwrite"
            )
