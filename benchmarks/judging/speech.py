"""Dialogues through a server: streams one by one, with a clock; then all of them whole, several at a time, judged."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ...clients.batch_lines import BatchLine
from ...clients.client import MossClient
from ...clients.request import Settings
from ...evaluation.dataset import Item
from ...evaluation.judge import BackEnds
from ...evaluation.results import Result
from ...evaluation.run import judge_folder
from ...evaluation.speaking import Speaking, speak

SETTINGS = Settings(seed=12, max_seconds=45.0)  # the longest dialogue takes about fifteen; the rest is the server's own
_TIMEOUT_S = 600.0
_CONCURRENCY = 4


@dataclass(frozen=True)
class Stream:
    """One stream as its listener had it.

    Attributes:
        first_audio_s: from the question to the first sound; the references are read and encoded in it.
        wall_s: from the question to the end.
        seconds: of audio.
    """

    number: int  # of the item
    pcm: bytes
    first_audio_s: float
    wall_s: float
    seconds: float


def stream_each(url: str, items: Sequence[Item]) -> list[Stream]:
    """Stream items one after the other, as `moss-ttsd batch` would ask for them.

    Raises:
        ClientError: one failed.
    """
    streams = []
    with MossClient(url, timeout_s=_TIMEOUT_S) as client:
        for item in items:
            line = BatchLine.from_json(json.dumps(item.fields).encode(), normalize=True)
            settings = Settings(**{**SETTINGS, "mode": line.mode})
            began, first, pcm, seconds = time.perf_counter(), None, b"", 0.0
            for chunk in client.stream(line.text, line.references(same_rate=False), **settings):
                if chunk.pcm and first is None:
                    first = time.perf_counter() - began
                pcm, seconds = pcm + chunk.pcm, seconds + chunk.seconds
            wall_s = time.perf_counter() - began
            streams.append(Stream(item.number, pcm, wall_s if first is None else first, wall_s, seconds))
    return streams


def speak_and_judge(url: str, items: Sequence[Item], folder: Path, back_ends: BackEnds) -> Result:
    """Speak all items whole, into `folder`, and judge them; the result stands beside it, as `folder.json`.

    Raises:
        ClientError, OSError: the server cannot be asked.
        CannotJudge: it has spoken nothing.
    """
    how = Speaking(url, None, _TIMEOUT_S, 8, _CONCURRENCY, SETTINGS, text_normalize=True)
    speak(items, folder, how, lambda: None)
    told = {**SETTINGS, "text_normalize": True}
    return judge_folder(
        items, folder, back_ends, folder.with_suffix(".json"), dataset="held out", server=url, settings=told
    )


def steps_apart(streams: Sequence[Stream], folder: Path) -> list[float]:
    """How far each stream is from the whole answer in `folder`: 16-bit steps at the worst sample.

    Returns:
        Infinity where the answer has another length, or is not there.
    """
    return [_steps_apart(stream.pcm, folder / f"{stream.number:06}.wav") for stream in streams]


def _steps_apart(pcm: bytes, path: Path) -> float:
    if not path.is_file():
        return float("inf")
    streamed = np.frombuffer(pcm, "<i2").astype(np.int32)
    whole = soundfile.read(path, dtype="int16")[0].astype(np.int32)
    return float(np.abs(streamed - whole).max(initial=0)) if len(streamed) == len(whole) else float("inf")
