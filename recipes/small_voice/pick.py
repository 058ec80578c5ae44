"""The codec that is nearest by spectrum so far: `python -m small_voice.pick CODECS PICKED [--table]`."""

import argparse
import json
import shutil
import sys
from pathlib import Path

from .codec_config import WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("codecs", type=Path)
    parser.add_argument("picked", type=Path)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    found = {}
    for path in sorted(args.codecs.glob("*/figures.json")):
        if (path.parent / "codec" / WEIGHTS).is_file():
            found[path.parent] = json.loads(path.read_text())
    if not found:
        sys.exit("no codec yet")
    best = min(found, key=lambda path: found[path].get("mel", 9.0))
    shutil.rmtree(args.picked, ignore_errors=True)
    shutil.copytree(best / "codec", args.picked)
    (args.picked / "figures.json").write_text(json.dumps(found[best]))
    if args.table:
        for path, figures in found.items():
            print(f"{path.name:6} {figures}{'  <- nearest' if path == best else ''}")


if __name__ == "__main__":
    main()
