"""Command line of the fuse tool: `python -m sglang_moss.fuse --model-path LM --codec-model-path CODEC --save-path OUT`.

Exit status: 0 done, 1 refused (one line on stderr), 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence

from sglang_moss.request.profile import PROFILES

from .errors import FuseError
from .tool import fuse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool with `argv` (default: the command line); returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sglang_moss.fuse",
        description="Fuse a language model of the family and its codec into one checkpoint that `sglang serve` loads.",
    )
    parser.add_argument("--model-path", required=True, help="directory of the language model, downloaded before")
    parser.add_argument("--codec-model-path", required=True, help="directory of the codec, downloaded before")
    parser.add_argument("--save-path", required=True, help="directory to make; needs room for both checkpoints")
    parser.add_argument("--profile", choices=list(PROFILES), help="which model of the family it is; by evidence")
    parser.add_argument("--overwrite", action="store_true", help="replace --save-path once the new one is whole")
    args = parser.parse_args(argv)
    try:
        print(
            fuse(args.model_path, args.codec_model_path, args.save_path, profile=args.profile, overwrite=args.overwrite)
        )
    except FuseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
