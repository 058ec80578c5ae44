"""Speaks every line of a JSONL file, many at a time; a run that was broken off goes on where it stopped.

    in.jsonl -> lines -> requests -> SAVE_DIR/000001.wav, 000002.wav, ... and SAVE_DIR/output.jsonl

The names are those of the reference's batch script. A file appears under its name when it is whole. A line is done
again if its fields, its clips' sizes or times, or the settings have changed, or if its file is gone.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Any

from .async_client import AsyncMossClient
from .batch_lines import BadLine, BatchLine
from .batch_record import BatchRecord, fingerprint
from .errors import ClientError, ServerRefused, ServerUnreachable
from .request import Mode, Settings, request_body
from .text_file import check_is_text

_LINES_WITHOUT_SERVER = 3  # times the concurrency: so many in a row without an answer end the run
_LOOKED_AT = 4096  # bytes of the input, which tell whether it is text
_KEY_REFUSED = (401, 403)
_SERVER_AWAY = (502, 503, 504)  # it leaves, or a proxy in front of it finds none


class BatchStopped(ClientError):  # noqa: N818 (named for what happened)
    """The server is gone, or takes no request of ours: going on would fail every line that is left."""


@dataclass
class BatchCounts:
    """How far a run has come.

    Attributes:
        spoken, failed, skipped: lines; skipped ones were done before.
        seconds: of audio, of the lines spoken in this run.
    """

    spoken: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0


@dataclass
class Batch:
    """One run over a file.

    Attributes:
        input_jsonl: a request each line, see `batch_lines`; blank lines are passed over.
        save_dir: where audio and `output.jsonl` go; made if it is not there.
        concurrency: requests under way at a time.
        settings: of every request.
        mode: how clips are used; None: by what a line has.
        text_normalize: rewrite every script the way the model was trained to read it.
        sample_rate_normalize: resample the clips of a line to the lowest rate among them.
        on_line: called after each line, with its number and what is wrong with it, if anything.
    """

    input_jsonl: Path
    save_dir: Path
    concurrency: int
    settings: Settings = field(default_factory=Settings)
    mode: Mode | None = None
    text_normalize: bool = False
    sample_rate_normalize: bool = False
    on_line: Callable[[int, str | None], None] = lambda _line, _error: None
    counts: BatchCounts = field(default_factory=BatchCounts)
    _unanswered: int = 0  # lines in a row that found no server

    async def run(self, client: AsyncMossClient, n_lines: int) -> None:
        """Speak what is not done yet of the first `n_lines` lines, see `count_lines`.

        Raises:
            BatchStopped: see there; what was done is kept.
            OSError: the input cannot be read, or `save_dir` not be written.
            ValueError: another run is writing into `save_dir`, the input lies there under the output's name, or a
                setting that no line could have.
        """
        request_body("", (), self.settings)
        self.save_dir.mkdir(parents=True, exist_ok=True)
        with _alone_in(self.save_dir), self.input_jsonl.open("rb") as file:
            output = self.save_dir / "output.jsonl"
            if output.exists() and output.samefile(self.input_jsonl):
                raise ValueError(f"{self.input_jsonl} is what this run would write: name another --save-dir")
            record = BatchRecord(output, n_lines)
            try:
                # Shared: each worker takes the next one. The file may grow meanwhile.
                lines = enumerate(islice(file, n_lines), start=1)
                async with asyncio.TaskGroup() as workers:
                    for _ in range(self.concurrency):
                        workers.create_task(self._work(lines, client, record))
                record.put_in_order()
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
            finally:
                record.close()

    async def _work(self, lines: Iterator[tuple[int, bytes]], client: AsyncMossClient, record: BatchRecord) -> None:
        for number, raw in lines:
            problem = None
            try:
                if not raw.isspace():
                    await self._line(number, raw, client, record)
            except (ClientError, ValueError) as error:  # a BadLine is a ValueError
                problem = str(error)
                self.counts.failed += 1
                record.add({"id": _id(number), "line": number, "output_audio": None, "error": problem})
                self._check_server(error)
            self.on_line(number, problem)
            await asyncio.sleep(0)  # lines that are done leave the others their turn

    async def _line(self, number: int, raw: bytes, client: AsyncMossClient, record: BatchRecord) -> None:
        line = BatchLine.from_json(raw, self.mode, normalize=self.text_normalize)
        output = self.save_dir / f"{_id(number)}.wav"
        asked = fingerprint(line.fields, line.text, line.mode, self._request_settings, _stats(line.clips))
        if record.is_done(number, asked) and output.exists():
            self.counts.skipped += 1
            return
        references = await asyncio.to_thread(line.references, same_rate=self.sample_rate_normalize)
        speech = await client.generate(line.text, references, **{**self.settings, "mode": line.mode})
        self._unanswered = 0
        _write_whole(output, speech.wav)
        self.counts.spoken += 1
        self.counts.seconds += speech.seconds
        record.add(
            line.fields
            | {
                "id": _id(number),
                "line": number,
                "output_audio": str(output.absolute()),
                "duration": speech.seconds,
                "finish_reason": speech.finish_reason,
                "sampling_seed": speech.meta.get("sampling_seed"),
                "fingerprint": asked,
            }
        )

    @property
    def _request_settings(self) -> dict[str, Any]:
        return {**self.settings, "same_rate": self.sample_rate_normalize}

    def _check_server(self, error: Exception) -> None:
        """Raises BatchStopped where every other line would fail as this one did."""
        status = error.status if isinstance(error, ServerRefused) else None
        away = isinstance(error, ServerUnreachable) or status in _SERVER_AWAY
        self._unanswered = self._unanswered + 1 if away else 0
        if self._unanswered >= _LINES_WITHOUT_SERVER * self.concurrency:
            raise BatchStopped(f"{error}; run the same command again to go on")
        if status in _KEY_REFUSED:
            raise BatchStopped(f"{error}; give the server's key with --api-key or MOSS_API_KEY")


def count_lines(path: Path) -> int:
    """Lines of a file, blank ones too.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file (a pipe, say, can be read once only), or no text in UTF-8.
    """
    if not S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no regular file: a batch reads its input twice")
    with path.open("rb") as file:
        check_is_text(file.read(_LOOKED_AT), str(path))
        file.seek(0)
        return sum(1 for _ in file)


def _id(number: int) -> str:
    return f"{number:06}"


def _stats(clips: list[Path | str]) -> list[tuple[int, int]]:
    """Size and time of each clip's file: reading all of them would make a finished batch slow to resume.

    What a URL holds is not asked: its line is done again if the URL changes.
    """
    try:
        found = [clip.stat() for clip in clips if isinstance(clip, Path)]
    except (OSError, ValueError) as error:
        raise BadLine(str(error)) from error
    return [(stat.st_size, stat.st_mtime_ns) for stat in found]


def _write_whole(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(data)
    beside.replace(path)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the system ends this when the process ends, however it does."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"another run is writing into {folder}") from None
    finally:
        os.close(lock)
