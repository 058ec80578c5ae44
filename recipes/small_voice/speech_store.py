"""Utterances on the disk: `NN.pcm` (int16, 24 kHz, one behind the other) and `NN.jsonl` (text, voice, samples).

Writers append, one process a pair of files; a reader takes what is whole when it opens them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .voices import NAMES, RATE


class Writer:
    """Appends utterances to a pair of files."""

    def __init__(self, directory: Path, part: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._pcm = (directory / f"{part:02d}.pcm").open("wb")
        self._lines = (directory / f"{part:02d}.jsonl").open("w", encoding="utf-8")
        self.seconds = 0.0

    def put(self, text: str, voice: str, samples: np.ndarray) -> None:
        """One utterance; samples [L] int16."""
        self._pcm.write(samples.tobytes())
        self._pcm.flush()
        self._lines.write(json.dumps([text, NAMES.index(voice), len(samples)]) + "\n")
        self._lines.flush()
        self.seconds += len(samples) / RATE


@dataclass(frozen=True)
class Store:
    """Utterances that a reader sees; numbers run over all files."""

    texts: list[str]
    voices: np.ndarray  # [N] int8, places in `voices.NAMES`
    lengths: np.ndarray  # [N] int64 samples
    files: np.ndarray  # [N] int16
    starts: np.ndarray  # [N] int64
    memory: list[np.ndarray]

    @classmethod
    def open(cls, directory: Path, max_hours: float = float("inf"), counts: list[int] | None = None) -> "Store":
        """What is there, of every file the same share where that is more than `max_hours`.

        Args:
            directory: of the files.
            max_hours: of all of them together.
            counts: how many utterances of each file, as another reader has seen them; None: all.
        """
        paths = sorted(directory.glob("*.pcm"))
        share = max_hours * 3600 * RATE / max(len(paths), 1)
        texts, columns, memory = [], [], []
        for file, path in enumerate(paths):
            size = path.stat().st_size // 2
            memory.append(np.memmap(path, np.int16, "r") if size else np.zeros(0, np.int16))
            at = 0
            lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            for line in lines[: None if counts is None else counts[file]]:
                if not line.endswith("\n"):
                    break
                text, voice, length = json.loads(line)
                if at + length > min(size, share):
                    break
                texts.append(text)
                columns.append((voice, length, file, at))
                at += length
        voices, lengths, files, starts = np.array(columns, np.int64).reshape(-1, 4).T
        return cls(texts, voices.astype(np.int8), lengths, files.astype(np.int16), starts, memory)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def hours(self) -> float:
        return float(self.lengths.sum()) / RATE / 3600

    @property
    def counts(self) -> list[int]:
        """Utterances of each file."""
        return np.bincount(self.files, minlength=len(self.memory)).tolist()

    def __getitem__(self, i: int) -> np.ndarray:
        """[L] int16."""
        start = int(self.starts[i])
        return self.memory[self.files[i]][start : start + int(self.lengths[i])]
