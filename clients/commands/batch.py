"""`moss-ttsd batch`: every line of a JSONL file to an audio file."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..async_client import AsyncMossClient
from ..batch import Batch, count_lines
from ..request import Settings
from .grouping import grouped
from .options import MaxSeconds, ModeOption, Sampling, Server, failures_in_one_line

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
    concurrency: Annotated[int, typer.Option(help="Requests under way at a time.", min=1, max=1024)] = 16,
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
    """Speak every line of a JSONL file, many at a time.

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
            work = Batch(
                input_jsonl, save_dir, concurrency, settings, mode, text_normalize, sample_rate_normalize, tell
            )
            asyncio.run(_run(work, n_lines, server, retries))
        counts, took_s = work.counts, time.monotonic() - started
        typer.echo(
            f"{counts.spoken} spoken, {counts.failed} failed, {counts.skipped} done before; {counts.seconds:.2f} s of "
            f"audio in {took_s:.2f} s: {save_dir / 'output.jsonl'}"
        )
        if counts.failed:
            raise typer.Exit(1)


async def _run(work: Batch, n_lines: int, server: Server, retries: int) -> None:
    async with AsyncMossClient(server.url, server.api_key, server.timeout, retries) as client:
        await work.run(client, n_lines)
