"""`moss-ttsd eval`: speak a dataset and judge it, or judge what is there; `eval compare`: hold two results together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from ..request import Settings
from .grouping import grouped
from .options import MaxSeconds, ModeOption, Sampling, Server, failures_in_one_line

if TYPE_CHECKING:
    from ...evaluation.dataset import Item
    from ...evaluation.results import Result

EPILOG = """Examples:

moss-ttsd eval --dataset dialogues.jsonl --url http://127.0.0.1:30000 --report report.html

moss-ttsd eval --dataset dialogues.jsonl --audio spoken/ --out spoken.json --recogniser faster-whisper

moss-ttsd eval compare before.json after.json
"""
_LISTENING = "Who listens"
_SPEAKING = "Speaking"

app = typer.Typer(help="Judge speech: words, voices, sound.", invoke_without_command=True, rich_markup_mode="markdown")


@dataclass(frozen=True)
class Listening:
    """Back ends by name; see docs/evaluation.md."""

    recogniser: Annotated[
        str, typer.Option(help="pocketsphinx, faster-whisper or whisper.", rich_help_panel=_LISTENING)
    ] = "pocketsphinx"
    recogniser_model: Annotated[
        str | None,
        typer.Option(help="Its folder, or a name to download.", show_default=False, rich_help_panel=_LISTENING),
    ] = None
    embedder: Annotated[
        str, typer.Option(help="resemblyzer, wavlm, wespeaker, or none.", rich_help_panel=_LISTENING)
    ] = "resemblyzer"
    embedder_model: Annotated[
        str | None, typer.Option(help="Its file, folder or name.", show_default=False, rich_help_panel=_LISTENING)
    ] = None
    aligner: Annotated[str, typer.Option(help="words, proportional or mms.", rich_help_panel=_LISTENING)] = "words"
    device: Annotated[str, typer.Option(help="cpu or cuda.", rich_help_panel=_LISTENING)] = "cpu"


@app.callback(epilog=EPILOG)
@grouped
def evaluate(
    context: typer.Context,
    dataset: Annotated[
        Path | None,
        typer.Option(help="JSONL file as `batch` reads it, or a folder of such files.", show_default=False),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(help="Judge the speech in this folder instead of asking a server.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Result to write, in JSON.")] = Path("result.json"),
    report: Annotated[
        Path | None, typer.Option(help="Page to write, with plots and players.", show_default=False)
    ] = None,
    embed_audio: Annotated[
        bool, typer.Option("--embed-audio", help="Put the speech into the page, 40 MB of it at most.")
    ] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="BAR", help="Such as wer<=0.15 or acc>=0.9; repeat it.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only so many items, from the first.", min=1, show_default=False)
    ] = None,
    save_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what the server speaks; by default beside --out.",
            show_default=False,
            rich_help_panel=_SPEAKING,
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(help="Requests under way at a time.", min=1, max=1024, rich_help_panel=_SPEAKING)
    ] = 8,
    retries: Annotated[
        int, typer.Option(help="Of a request that finds the server busy.", min=0, rich_help_panel=_SPEAKING)
    ] = 8,
    text_normalize: Annotated[
        bool,
        typer.Option(
            "--text-normalize",
            help="Rewrite scripts the way the model was trained to read them.",
            rich_help_panel=_SPEAKING,
        ),
    ] = False,
    max_seconds: MaxSeconds = None,
    mode: ModeOption = None,
    *,
    listening: Listening,
    sampling: Sampling,
    server: Server,
) -> None:
    """Speak a dataset through a server and judge what is heard: words, voices, sound.

    A run that was broken off goes on where it stopped when the same command is given again. Exit status 1 says that
    some items have no score, or that a bar was not cleared.
    """
    if context.invoked_subcommand is not None:
        return
    if dataset is None:
        raise typer.BadParameter("name what is to be judged", param_hint="--dataset")
    with failures_in_one_line(), _extra_installed():
        from ...evaluation.dataset import read_dataset
        from ...evaluation.gates import bars_of, missed
        from ...evaluation.report import write_report
        from ...evaluation.run import Choice, judge_folder
        from ...evaluation.speaking import Speaking, speak

        bars = bars_of(require or [])
        for path in filter(None, (out, report)):
            _check_writable(path)
        items = read_dataset(dataset)[:limit]
        back_ends = Choice(**asdict(listening)).load()  # before anything is spoken for nothing
        spoken: dict = {}
        folder = audio or save_dir or out.with_name(f"{out.stem}.audio")
        if audio is None:
            settings = Settings(max_seconds=max_seconds, **asdict(sampling))
            how = Speaking(
                server.url, server.api_key, server.timeout, retries, concurrency, settings, mode, text_normalize
            )
            with _progress("spoken", len(items)) as advance:
                speak(items, folder, how, advance)
            spoken = {**settings, "mode": mode, "text_normalize": text_normalize}
        with _progress("judged", len(items)) as advance:
            result = judge_folder(
                items,
                folder,
                back_ends,
                out,
                dataset=str(dataset),
                server=None if audio else server.url,
                settings=spoken,
                on_item=advance,
            )
        if report is not None:
            write_report(result, out.parent, report, embed=embed_audio)
        _tell(result, items, out, report)
        problems = missed(bars, result.figures)
        for problem in problems:
            typer.echo(problem, err=True)
        if result.n_failed or problems:
            raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Result of one run.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Result of another, over the same dataset.", show_default=False)],
) -> None:
    """Hold two results together: what changed from A to B, and whether that could be chance.

    p is that of a paired permutation test, the interval that of a paired bootstrap, both over items.
    """
    with failures_in_one_line(), _extra_installed():
        from ...evaluation.comparison import compare as compared
        from ...evaluation.comparison import table_of
        from ...evaluation.results import Result

        typer.echo(table_of(compared(Result.read(a), Result.read(b))))


@contextmanager
def _progress(what: str, n_items: int) -> Iterator[Callable[[], None]]:
    with tqdm(total=n_items, unit="item", desc=what, disable=None) as bar:

        def advance() -> None:
            bar.update()

        yield advance


@contextmanager
def _extra_installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the judge needs {error.name}, which is not installed: pip install 'sglang-moss[eval]'"
        ) from error


def _check_writable(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: name a file in a folder that is there")


def _tell(result: "Result", items: "list[Item]", out: Path, report: Path | None) -> None:
    from ...evaluation.statistics import METRICS

    for metric in METRICS:
        if (figure := result.figures.get(metric.name)) is not None:
            interval = "" if figure.low is None else f" [{figure.low:.4f}, {figure.high:.4f}]"
            typer.echo(f"{metric.title:<30} {figure.value:.4f}{interval}  ({figure.n} in {figure.n_items} items)")
    for flag, n in result.flags.items():
        typer.echo(f"{flag.replace('_', ' '):<30} {n} items")
    for item in result.items:
        if item.problem:
            typer.echo(f"{item.id}: {item.problem}", err=True)
    written = f"{out}" + (f", {report}" if report else "")
    typer.echo(f"{len(items) - result.n_failed} of {len(items)} items judged: {written}")
