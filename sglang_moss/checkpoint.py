"""How a fused checkpoint is told from others; imports nothing, so that a command line is checked in no time.

Source: MOSS-TTSD fuse script (`config.json` of a fused checkpoint).
"""

import json
from pathlib import Path
from typing import Any

ARCHITECTURE = "MossTTSDdelayWithCodec"
TTS_ARCHITECTURE = "MossTTSDelayWithCodec"  # of MOSS-TTS, as the served fork's own tool fuses it
ARCHITECTURES = (ARCHITECTURE, TTS_ARCHITECTURE)
MODEL_TYPE = "moss_tts_delay_with_codec"
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"  # where there is no index
OWN_FIELD = (
    "sglang_moss"  # of config.json; absent from checkpoints of MOSS-TTSD, which are as the reference's tool fuses
)


def read_config(model_path: str) -> dict[str, Any]:
    """`config.json` of a checkpoint's directory.

    Raises:
        OSError, ValueError: there is none, or it is no JSON.
    """
    return json.loads((Path(model_path) / "config.json").read_text(encoding="utf-8"))


def is_fused(model_path: str) -> bool:
    """Whether a directory holds a fused checkpoint; False for anything that is not a directory with a config."""
    try:
        return not set(ARCHITECTURES).isdisjoint(read_config(model_path).get("architectures") or ())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def missing_weights(model_path: str) -> str | None:
    """The name of a file of weights that a fused checkpoint lacks, as where copying it broke off; None: none is."""
    folder = Path(model_path)
    try:
        index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
        shards = sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        shards = []
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return INDEX_NAME
    if not shards:
        return None if any(folder.glob("*.safetensors")) else SINGLE_NAME
    return next((name for name in shards if not (folder / name).is_file()), None)


def why_not_served(model_path: str) -> str:
    """One sentence for a path that `is_fused` refuses: what is there, and what makes a fused checkpoint."""
    path = Path(model_path)
    if not path.exists():
        found = f"there is no {model_path} (checkpoints are folders of this machine; nothing is downloaded)"
    elif not path.is_dir():
        found = f"{model_path} is a file; name the folder of a checkpoint"
    elif not (path / "config.json").is_file():
        found = f"{model_path} has no config.json"
    else:
        found = f"{model_path} is another checkpoint"
    return (
        f"{found}; make a fused checkpoint with `python -m sglang_moss.fuse` "
        "(`sglang serve` without --delay-pattern serves others)"
    )
