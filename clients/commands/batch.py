"""`moss-ttsd batch`: every line of a JSONL file to an audio file."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..async_client import AsyncMossClient
from ..batch import Batch, count_lines
from ..local_server import exit_on_signals
from ..own_server import REQUESTS_A_GPU, n_gpus, own_server
from ..request import Settings
from .grouping import grouped
from .options import MaxSeconds, ModeOption, Sampling, Server, failures_in_one_line

_CONCURRENCY = 16
_OWN = "A server of its own, in the place of --url"
EPILOG = """Example: moss-ttsd batch --input-jsonl in.jsonl --save-dir out --text-normalize

A line: {"text": "[S1] Hello. [S2] Hi.", "base_path": "clips", "prompt_audio_speaker1": "a.wav",
"prompt_text_speaker1": "Good morning.", "prompt_audio_speaker2": "b.wav", "prompt_text_speaker2": "It rains."}
"""


@grouped
def batch(
    input_jsonl: Annotated[
        Path, typer.Option(help="A request on each line, as the reference's script reads them.", show_default=False)
    ],
    save_dir: Annotated[
        Path, typer.Option(help="Folder for 000001.wav, ... and output.jsonl; made if need be.", show_default=False)
    ],
    model_path: Annotated[
        Path | None,
        typer.Option(
            help="A fused checkpoint: a server of it is started on every visible GPU, and stopped at the end.",
            show_default=False,
            rich_help_panel=_OWN,
        ),
    ] = None,
    server_args: Annotated[
        str, typer.Option(help="More arguments of `sglang serve` for it, one string.", rich_help_panel=_OWN)
    ] = "",
    concurrency: Annotated[
        int | None,
        typer.Option(
            help=f"Requests under way at a time; {_CONCURRENCY}, or {REQUESTS_A_GPU} a GPU with --model-path.",
            min=1,
            max=1024,
            show_default=False,
        ),
    ] = None,
    retries: Annotated[int, typer.Option(help="Of a request that finds the server busy or away.", min=0)] = 8,
    text_normalize: Annotated[
        bool, typer.Option("--text-normalize", help="Rewrite scripts the way the model was trained to read them.")
    ] = False,
    sample_rate_normalize: Annotated[
        bool,
        typer.Option("--sample-rate-normalize", help="Resample the clips of a line to the lowest rate among them."),
    ] = False,
    max_seconds: MaxSeconds = None,
    mode: ModeOption = None,
    *,
    sampling: Sampling,
    server: Server,
) -> None:
    """Speak every line of a JSONL file, many at a time, by a server that runs or by one of its own.

    Run the same command again to go on after a break: only what is missing, failed or changed is done. A line that
    fails is told with its number here and in output.jsonl, and stops no other; exit status 1 says that some did.
    """
    with failures_in_one_line():
        n_lines = count_lines(input_jsonl)
        started = time.monotonic()
        with tqdm(total=n_lines, unit="line", disable=None) as bar:

            def tell(line: int, problem: str | None) -> None:
                if problem is not None:
                    with bar.external_write_mode():
                        typer.echo(f"line {line}: {problem}", err=True)
                rate = work.counts.seconds / (time.monotonic() - started)
                bar.set_postfix_str(f"{work.counts.failed} failed, {rate:.1f} s of audio a second", refresh=False)
                bar.update()

            settings = Settings(max_seconds=max_seconds, **asdict(sampling))
            gpus = n_gpus() if model_path else 0
            concurrency = concurrency or (REQUESTS_A_GPU * max(gpus, 1) if model_path else _CONCURRENCY)
            work = Batch(
                input_jsonl, save_dir, concurrency, settings, mode, text_normalize, sample_rate_normalize, tell
            )
            with _server(server, model_path, save_dir, gpus, server_args, bar) as asked:
                started = time.monotonic()
                asyncio.run(_run(work, n_lines, asked, retries))
        counts, took_s = work.counts, time.monotonic() - started
        typer.echo(
            f"{counts.spoken} spoken, {counts.failed} failed, {counts.skipped} done before; {counts.seconds:.2f} s of "
            f"audio in {took_s:.2f} s: {save_dir / 'output.jsonl'}"
        )
        if counts.failed:
            raise typer.Exit(1)


@contextmanager
def _server(
    running: Server, model_path: Path | None, save_dir: Path, gpus: int, server_args: str, bar: tqdm
) -> Iterator[Server]:
    """The server to ask: one that runs, or one of our own while the block lasts."""
    if model_path is None:
        yield running
        return
    exit_on_signals()  # so that the server is stopped on the way out
    save_dir.mkdir(parents=True, exist_ok=True)
    own = own_server(model_path, save_dir / "server.log", gpus, server_args, lambda p: bar.set_description_str(str(p)))
    with own:
        bar.set_description_str("")
        yield replace(running, url=own.url, api_key=None)


async def _run(work: Batch, n_lines: int, server: Server, retries: int) -> None:
    async with AsyncMossClient(server.url, server.api_key, server.timeout, retries) as client:
        await work.run(client, n_lines)
