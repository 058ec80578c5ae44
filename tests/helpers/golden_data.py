"""Where the golden data lies, and how its files are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_json(name: str) -> Any:
    return json.loads((GOLDEN / "cases" / f"{name}.json").read_text(encoding="utf-8"))


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "cases" / f"{name}.npz") as arrays:
        return dict(arrays)
