"""The speech that is judged: spoken by a server now, or found in a folder.

    DIR/000001.wav, ... and DIR/output.jsonl     as `moss-ttsd batch` writes them; the number is the item's
    DIR/tv_07.wav                                or under the item's id; any suffix of `clips.SUFFIXES`

Speaking is a batch: many requests at a time, and a run that was broken off goes on where it stopped.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..clients.async_client import AsyncMossClient
from ..clients.batch import Batch
from ..clients.request import Mode, Settings
from .clips import SUFFIXES
from .dataset import Item, write_lines
from .errors import CannotJudge


@dataclass(frozen=True)
class Speaking:
    """How a server is asked to speak a dataset; the fields are those of `moss-ttsd batch`."""

    url: str
    api_key: str | None
    timeout_s: float
    retries: int
    concurrency: int
    settings: Settings = field(default_factory=Settings)
    mode: Mode | None = None
    text_normalize: bool = False


def speak(items: Sequence[Item], save_dir: Path, how: Speaking, on_item: Callable[[], None]) -> None:
    """Speak what is not there yet; what the server refused is told in `output.jsonl`.

    Raises:
        ClientError, OSError, ValueError: see `Batch.run`.
    """
    save_dir.mkdir(parents=True, exist_ok=True)
    lines = save_dir / "dataset.jsonl"
    write_lines(list(items), lines)
    batch = Batch(
        lines,
        save_dir,
        how.concurrency,
        how.settings,
        how.mode,
        how.text_normalize,
        on_line=lambda _line, _problem: on_item(),
    )

    async def run() -> None:
        async with AsyncMossClient(how.url, how.api_key, how.timeout_s, how.retries) as client:
            await batch.run(client, len(items))

    asyncio.run(run())


@dataclass(frozen=True)
class Recording:
    """An item's speech, or why there is none; notes are what the server said of it."""

    path: Path | None
    problem: str | None = None
    notes: tuple[str, ...] = ()


def recordings_in(folder: Path, items: Sequence[Item]) -> list[Recording]:
    """What is there of each item, in their order.

    Raises:
        CannotJudge: no such folder, or nothing of any item.
    """
    if not folder.is_dir():
        raise CannotJudge(f"{folder} is no folder of speech")
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}
    records = _records(folder / "output.jsonl")
    found = [
        _recording(files.get(item.id) or files.get(f"{item.number:06}"), records.get(item.number, {})) for item in items
    ]
    if not any(recording.path for recording in found):
        raise CannotJudge(
            f"{folder} holds no speech of these items: their files are called by id or number, such as "
            f"{items[0].id}.wav or {items[0].number:06}.wav" + (f" ({found[0].problem})" if records else "")
        )
    return found


def _recording(file: Path | None, record: dict) -> Recording:
    if file is None:
        return Recording(None, str(record.get("error") or "there is no speech of it"))
    cut = record.get("finish_reason") == "length"
    return Recording(file, notes=("the server cut the speech at its greatest length",) if cut else ())


def _records(path: Path) -> dict[int, dict]:
    """Records of a batch by line; none where there was no batch."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # of a run that was broken off
        if isinstance(record, dict) and isinstance(record.get("line"), int):
            records[record["line"]] = record
    return records
