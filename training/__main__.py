"""`torchrun --nproc-per-node N -m sglang_moss.training --config train.yaml [key=value ...]`: one process of a run.

`accelerate launch -m sglang_moss.training` does the same, and without either this process trains alone.
Exit status: 0 done, 1 refused (one line on stderr), 2 wrong usage, 130 Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .config_file import read_config
from .errors import TrainingError
from .run import describe, finetune


def main(argv: Sequence[str] | None = None, prog: str = "python -m sglang_moss.training") -> int:
    """Run with `argv` (default: the command line); returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Fine-tune a MOSS-TTSD language model on a prepared dataset.",
        epilog="Every key of the settings may be given as key=value or --key value, such as optimizer.rate=1e-5.",
    )
    parser.add_argument("--config", help="YAML file of settings")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and what memory it takes")
    parser.add_argument("--gpus", type=int, help="GPUs that a dry run is to reckon with")
    args, overrides = parser.parse_known_args(argv)
    try:
        config = read_config(args.config, overrides)
        if args.dry_run:
            print(describe(config, args.gpus or int(os.environ.get("WORLD_SIZE", "1"))))
            return 0
        outcome = finetune(config)
    except (TrainingError, ValueError, OSError) as error:  # other refusals of ours are ValueErrors
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: go on with the same command", file=sys.stderr)
        return 130
    if outcome is not None:
        print(outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main())
