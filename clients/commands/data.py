"""`moss-ttsd data`: recordings to a dataset for fine-tuning, and what is in one."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import failures_in_one_line

EPILOG = """Examples:

moss-ttsd data prepare --jsonl talks.jsonl --model-path MOSS-TTSD-v1.0 --codec-path MOSS-Audio-Tokenizer
--output-dir talks

moss-ttsd data inspect talks

A line: {"audio": "clips/1.wav", "text": "[S1] Hello. [S2] Hi.", "reference": ["alice.wav", "bob.wav"]}
"""
_RECORDS = "Records"
_MACHINE = "Machine"

data = typer.Typer(
    help="Prepare recordings for fine-tuning, and look at what was prepared.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@data.command(epilog=EPILOG)
def prepare(
    jsonl: Annotated[
        list[Path], typer.Option(help="A record on each line; repeat it for several files.", show_default=False)
    ],
    model_path: Annotated[
        Path, typer.Option(help="Directory of the language model, or of a fused checkpoint.", show_default=False)
    ],
    output_dir: Annotated[Path, typer.Option(help="Directory of the dataset, to make.", show_default=False)],
    codec_path: Annotated[
        Path | None, typer.Option(help="Directory of the codec; none with a fused one.", show_default=False)
    ] = None,
    base_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where relative paths of clips begin.",
            show_default="the working directory, or else where the JSONL file is",
            rich_help_panel=_RECORDS,
        ),
    ] = None,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize", help="Rewrite texts as `${normalize_text}` of /generate does.", rich_help_panel=_RECORDS
        ),
    ] = False,
    normalize_ordinary: Annotated[
        bool,
        typer.Option(
            "--normalize-ordinary",
            help="The same, after what people write was put right, as `say` and the speech API do.",
            rich_help_panel=_RECORDS,
        ),
    ] = False,
    template: Annotated[
        Literal["ttsd", "tts"], typer.Option(help="Of the prompts that the model reads.", rich_help_panel=_RECORDS)
    ] = "ttsd",
    check_template: Annotated[
        bool,
        typer.Option(
            "--check-template",
            help="Refuse a template whose fields are not those of the model directory's own processing_*.py, which is "
            "read and not run.",
            rich_help_panel=_RECORDS,
        ),
    ] = False,
    max_rows: Annotated[
        int | None,
        typer.Option(
            help="Reject what takes more rows, prompt and target.",
            min=1,
            show_default="32768, 43 minutes",
            rich_help_panel=_RECORDS,
        ),
    ] = None,
    max_pace: Annotated[
        float | None,
        typer.Option(
            help="Reject a text that its clip leaves so little time: times the usual pace of speech.",
            min=1.0,
            show_default="10",
            rich_help_panel=_RECORDS,
        ),
    ] = None,
    ignore_unknown: Annotated[
        bool,
        typer.Option("--ignore-unknown", help="Pass over fields that are not known here.", rich_help_panel=_RECORDS),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 if a record was rejected.", rich_help_panel=_RECORDS)
    ] = False,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Of an encoder, such as cuda:0 or cpu; repeat it for several.",
            show_default="all GPUs, or the CPU",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    decoders: Annotated[
        int | None,
        typer.Option(
            help="Processes that read audio.",
            min=1,
            show_default="12 a GPU, as far as there are cores",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin again, whatever of a dataset is there.")
    ] = False,
    summary: Annotated[
        Path | None, typer.Option(help="Write counts, hours and speed to this JSON file.", show_default=False)
    ] = None,
) -> None:
    """Encode recordings and their texts into a dataset, on all GPUs and cores.

    Run the same command again to go on after a break, however it came: only what was under way is done again. A record
    that cannot be used is told by line and id, here and in rejected.jsonl, and stops no other.
    """
    with failures_in_one_line():
        if normalize and normalize_ordinary:
            raise ValueError("--normalize and --normalize-ordinary exclude each other: say the one that will be served")
        if summary is not None and not summary.parent.is_dir():
            raise ValueError(f"--summary: there is no directory {summary.parent}; make it before")
        from ...training.data.prepare import prepare as prepare_dataset  # only here: torch takes seconds to import

        given = {"max_rows": max_rows, "max_pace": max_pace}
        result = prepare_dataset(
            jsonl,
            model_path,
            output_dir,
            codec_path=codec_path,
            base_dir=base_dir,
            normalizer="ordinary" if normalize_ordinary else "generate" if normalize else "none",
            template=template,
            check_template=check_template,
            ignore_unknown=ignore_unknown,
            devices=device,
            n_decoders=decoders,
            overwrite=overwrite,
            **{name: value for name, value in given.items() if value is not None},
        )
        if summary is not None:
            summary.write_text(json.dumps(asdict(result), indent=2) + "\n")
        typer.echo(result)
        if strict and result.n_rejected:
            raise typer.Exit(1)


@data.command()
def inspect(
    directory: Annotated[
        list[Path], typer.Argument(help="Of a dataset; several are looked at as one.", show_default=False)
    ],
    plot: Annotated[
        Path | None,
        typer.Option(help="Write the histogram of lengths to this PNG.", show_default="lengths.png in the first"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and draw only with --plot.")] = False,
) -> None:
    """Show hours, lengths, speakers, languages, and what was rejected and why; draw the lengths."""
    with failures_in_one_line():
        from ...training.data.inspect import draw_lengths, inspect_dataset  # only here, as above

        report = inspect_dataset(directory)
        typer.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False) if as_json else str(report))
        if plot is not None or not as_json:
            path = plot or directory[0] / "lengths.png"
            draw_lengths(directory, path)
            if not as_json:
                typer.echo(f"lengths: {path}")
