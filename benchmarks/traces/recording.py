"""A trace of some steps of a running server, by SGLang's profiler."""

import argparse
import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from ...clients.connection import connection

_PATIENCE_S = 120.0


async def recorded(
    args: argparse.Namespace,
    folder: Path,
    n_steps: int,
    activities: Sequence[str] = ("GPU",),
    beside: Sequence["asyncio.Task[Any]"] = (),
) -> dict[str, Any]:
    """What the profiler wrote of the next steps, as it wrote it (Chrome's format).

    Args:
        args: of the connection; its key has to be the administrator's.
        folder: for the trace, which the server can write.
        beside: what must not fail meanwhile.
    Raises:
        OSError: the server is not there, refused, or no trace came; the profiler is not left on.
    """
    before = _traces(folder)
    settings = {"output_dir": str(folder), "num_steps": n_steps, "activities": list(activities), "with_stack": False}
    key = args.admin_api_key or args.api_key
    async with httpx.AsyncClient(**connection(args.url, key, args.timeout)) as http:
        try:
            (await http.post("/start_profile", json=settings)).raise_for_status()
        except httpx.HTTPError as error:
            raise OSError(f"{args.url}: {error}") from error
        try:
            return await _new_trace(folder, before, beside)
        except TimeoutError:
            with contextlib.suppress(httpx.HTTPError):
                await http.post("/stop_profile")  # the steps have not come
            raise


async def _new_trace(folder: Path, before: set[Path], beside: Sequence["asyncio.Task[Any]"]) -> dict[str, Any]:
    contents: dict[Path, bytes] = {}
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        for path in _traces(folder) - before:
            try:
                content = gzip.decompress(path.read_bytes())
            except (EOFError, OSError):
                continue  # still being written
            if contents.get(path) == content:  # SGLang writes one more than once
                return json.loads(content)
            contents[path] = content
        for task in beside:
            if task.done():
                task.result()  # raises what went wrong
    raise TimeoutError(f"no trace came in {folder}: has the server something to do?")


def _traces(folder: Path) -> set[Path]:
    return set(folder.glob("*.trace.json.gz"))
