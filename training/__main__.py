"""`torchrun --nproc-per-node N -m sglang_moss.training --config train.yaml [key=value ...]`: one process of a run.

`accelerate launch -m sglang_moss.training` does the same, and without either this process trains alone.
Exit status: 0 done, 1 refused (one line on stderr), 2 wrong usage, 130 Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .distributed import device_of
from .run import check_settings, describe, finetune
from .workflow import prepare, read_workflow_config


def main(argv: Sequence[str] | None = None, prog: str = "python -m sglang_moss.training") -> int:
    """Run with `argv` (default: the command line); returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Fine-tune a MOSS-TTSD language model on a prepared dataset, or on records to be prepared first.",
        epilog="Every key of the settings may be given as key=value or --key value, such as optimizer.rate=1e-5.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="YAML file of settings; a workflow file of v0.5 is taken as well")
    parser.add_argument("--from-jsonl", metavar="FILE", help="prepare these records first, and fuse in the end")
    parser.add_argument("--base-dir", help="where relative paths of these records begin")
    parser.add_argument("--normalizer", help="of these records' texts: none, generate or ordinary")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and what memory it takes")
    parser.add_argument("--gpus", type=int, help="GPUs that a dry run is to reckon with")
    args, overrides = parser.parse_known_args(argv)
    if args.gpus is not None and args.gpus < 1:
        parser.error(f"--gpus: expected a positive number, got {args.gpus}")
    if args.gpus is not None and not args.dry_run:
        parser.error("--gpus is for --dry-run: processes are torchrun's to say")
    try:
        config, prepared = read_workflow_config(args.config, overrides, args.from_jsonl)
        if prepared is None and (args.base_dir is not None or args.normalizer is not None):
            raise ValueError("--base-dir and --normalizer are of the records of --from-jsonl, which is missing")
        if prepared is not None:
            _refuse_several("--from-jsonl and workflow files")
            check_settings(config)
            if not args.dry_run:
                device_of(config.compute.device)
            said = {"base_dir": args.base_dir, "normalizer": args.normalizer}
            prepare({**prepared, **{key: value for key, value in said.items() if value is not None}})
        if args.dry_run:
            print(describe(config, args.gpus or int(os.environ.get("WORLD_SIZE", "1"))))
            return 0
        outcome = finetune(config)
    except OSError as error:
        print(f"error: {f'{error.filename}: {error.strerror}' if error.filename else error}", file=sys.stderr)
        return 1
    except ValueError as error:  # as refusals of ours are
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: go on with the same command", file=sys.stderr)
        return 130
    if outcome is not None:
        print(outcome)
    return 0


def _refuse_several(what: str) -> None:
    """Preparing has processes of its own, on every GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"{what} prepare data in one process: run `moss-ttsd data prepare` first, then torchrun with the dataset"
        )


if __name__ == "__main__":
    sys.exit(main())
