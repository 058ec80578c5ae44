"""The command line `moss-ttsd`: speak with a running server, keep voices on it, measure and judge it, and fuse
checkpoints.

Exit status: 0 done, 1 refused or failed (one line on stderr), 2 wrong usage, 130 Ctrl-C.
"""

from typing import Annotated

import typer

from sglang_moss import __version__

from ..fuse import fuse as fuse_checkpoints
from .commands import batch, evaluate, podcast, say
from .commands.options import failures_in_one_line
from .commands.voices import voices

app = typer.Typer(
    help="MOSS-TTSD: dialogue scripts to speech.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they would hold the API key
)
app.command(epilog=say.EPILOG)(say.say)
app.command(epilog=batch.EPILOG)(batch.batch)
app.command(epilog=podcast.EPILOG)(podcast.podcast)
app.add_typer(voices, name="voices")
app.add_typer(evaluate.app, name="eval")


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"moss-ttsd {__version__}")
        raise typer.Exit


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: Annotated[list[str] | None, typer.Argument(help="See `moss-ttsd bench --help`.")] = None) -> None:
    """Measure the speed of a running server."""
    from ..benchmarks.serving import main as benchmark  # only here: nothing that other commands need

    raise typer.Exit(benchmark(arguments or [], prog="moss-ttsd bench"))


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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --save-path once the new one is whole.")
    ] = False,
) -> None:
    """Fuse a language model and its codec into one checkpoint that `sglang serve` loads."""
    with failures_in_one_line():
        typer.echo(fuse_checkpoints(model_path, codec_model_path, save_path, overwrite=overwrite))


if __name__ == "__main__":
    app()
