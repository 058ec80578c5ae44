"""`moss-ttsd finetune`: train on a prepared dataset, and `moss-ttsd merge`: adapters into a checkpoint.

What trains is imported when it is asked for: nothing else of this command line needs it.
"""

from pathlib import Path
from typing import Annotated

import typer

from .options import failures_in_one_line

EPILOG = """Examples:

moss-ttsd finetune --config train.yaml optimizer.rate=2e-5 --steps 400

moss-ttsd finetune model=MOSS-TTSD-v1.0 dataset=talks output=tuned method=lora --dry-run

moss-ttsd finetune --from-jsonl talks.jsonl model=MOSS-TTSD-v1.0 codec=MOSS-Audio-Tokenizer output=tuned method=lora

Several GPUs: torchrun --nproc-per-node 8 -m sglang_moss.training --config train.yaml
"""


def finetune(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="--config FILE, --from-jsonl FILE, --dry-run, --gpus N, and key=value of any setting."),
    ] = None,
) -> None:
    """Fine-tune a language model: full or LoRA, packed, resumable, and exported for `fuse` and `sglang serve`.

    Run the same command again to go on after a break, however it came.
    """
    with failures_in_one_line():
        from ...training.__main__ import main  # takes seconds, in which Ctrl-C may come

        raise typer.Exit(main(arguments or [], prog="moss-ttsd finetune"))


def merge(
    base: Annotated[
        Path, typer.Option(help="Directory of the checkpoint that the adapters were trained on.", show_default=False)
    ],
    adapters: Annotated[Path, typer.Option(help="Directory that a LoRA run kept.", show_default=False)],
    save_path: Annotated[Path, typer.Option(help="Directory to make.", show_default=False)],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --save-path once the new one is whole.")
    ] = False,
) -> None:
    """Merge kept adapters into their base, in float32 and rounded once."""
    with failures_in_one_line():
        from ...training.export import merge as merge_adapters

        merge_adapters(base, adapters, save_path, overwrite=overwrite)
        typer.echo(f"merged: {save_path}")
