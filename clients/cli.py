"""The command line `moss-ttsd`: speak with a running server, measure it and judge it; fuse and check checkpoints, tune
them.

Exit status: 0 done, 1 refused or failed (one line on stderr), 2 wrong usage, 130 Ctrl-C.
"""

from pathlib import Path
from typing import Annotated

import typer

from sglang_moss import __version__
from sglang_moss.command import serve as serve_by_sglang
from sglang_moss.request.profile import PROFILES

from ..fuse import fuse as fuse_checkpoints
from ..fuse.check import check_model
from .commands import batch, evaluate, podcast, say
from .commands.data import data
from .commands.design import EPILOG as DESIGN_EPILOG
from .commands.design import design_voice
from .commands.finetune import EPILOG as FINETUNE_EPILOG
from .commands.finetune import finetune, merge
from .commands.options import failures_in_one_line
from .commands.voices import voices

app = typer.Typer(
    help="MOSS-TTSD and its family: dialogues, texts, designed voices and sounds.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they would hold the API key
)
app.command(epilog=say.EPILOG)(say.say)
app.command(epilog=batch.EPILOG)(batch.batch)
app.command(epilog=podcast.EPILOG)(podcast.podcast)
app.command("design", epilog=DESIGN_EPILOG)(design_voice)
app.add_typer(voices, name="voices")
app.add_typer(data, name="data")
app.command(epilog=FINETUNE_EPILOG, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(
    finetune
)
app.command()(merge)
app.add_typer(evaluate.app, name="eval")


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"moss-ttsd {__version__}")
        raise typer.Exit


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def serve(
    context: typer.Context,
    fused: Annotated[str, typer.Argument(help="Directory of a fused checkpoint.", show_default=False)],
) -> None:
    """Serve a fused checkpoint: `sglang serve FUSED --delay-pattern`, which says at once what cannot work.

    Takes all arguments of `sglang serve --model-type moss-ttsd --help`, such as --port 30000 --host 0.0.0.0.
    """
    serve_by_sglang([fused, *context.args])


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: Annotated[list[str] | None, typer.Argument(help="See `moss-ttsd bench --help`.")] = None) -> None:
    """Measure the speed of a running server, or with --listeners how many it serves at a promise."""
    arguments = list(arguments or [])
    # Only here: nothing that other commands need.
    if "--listeners" in arguments:
        from ..benchmarks.listeners import main as listeners

        arguments.remove("--listeners")
        raise typer.Exit(listeners(arguments, prog="moss-ttsd bench --listeners"))
    from ..benchmarks.serving import main as benchmark

    raise typer.Exit(benchmark(arguments, prog="moss-ttsd bench"))


@app.command()
def fuse(
    model_path: Annotated[
        str, typer.Option(help="Directory of the language model, downloaded before.", show_default=False)
    ],
    codec_model_path: Annotated[
        str, typer.Option(help="Directory of the codec, downloaded before.", show_default=False)
    ],
    save_path: Annotated[
        str, typer.Option(help="Directory to make; needs room for both checkpoints.", show_default=False)
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            help=f"Which model of the family it is: {', '.join(PROFILES)}. By default by what its directory says.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --save-path once the new one is whole.")
    ] = False,
) -> None:
    """Fuse a language model and its codec into one checkpoint that `sglang serve` loads."""
    with failures_in_one_line():
        typer.echo(fuse_checkpoints(model_path, codec_model_path, save_path, profile=profile, overwrite=overwrite))


@app.command()
def check(
    model_dir: Annotated[Path, typer.Argument(help="Directory of a published language model.", show_default=False)],
    profile: Annotated[
        str | None, typer.Option(help="Which model of the family it is; by evidence.", show_default=False)
    ] = None,
) -> None:
    """Compare a published checkpoint with what this project assumes of it: prompt, ids, sizes; and say a verdict.

    Exit status 1: it cannot be served.
    """
    with failures_in_one_line():
        findings = []
        for finding in check_model(model_dir, profile):
            findings.append(finding)
            typer.echo(str(finding))
    if findings[-1].verdict == "wrong":
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
