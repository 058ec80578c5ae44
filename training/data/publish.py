"""From a journal that is complete to a dataset's files, in the order of the input.

Nothing is decided here that was not in the input and the journal, so that every run over the same input ends with the
same bytes. Files are written beside, and get their names when all are whole; `dataset.json` gets its name last.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.errors import BadText
from sglang_moss.request.prompt import Tokenizer
from sglang_moss.request.template import Template

from ..example import Example
from ..rows import n_input_rows, prompt_rows
from .checks import check_pace, clipping_warning, n_speakers
from .errors import BadRecord
from .journal import Entry, Journal
from .reading import ReadLine
from .records import Record
from .shards import DatasetWriter, StoredExample
from .storage import NO_REFERENCE


@dataclass(frozen=True)
class PublishRules:
    """What an example has to meet beyond its line.

    Attributes:
        frame_rate: frames a second.
        max_rows: that the model reads of one example, prompt and target.
        max_pace: see `checks.check_pace`.
    """

    tokenizer: Tokenizer
    tokens: SpecialTokens
    template: Template
    frame_rate: float
    max_rows: int
    max_pace: float


@dataclass(frozen=True)
class Finding:
    """Something about a line, for `rejected.jsonl` or `warnings.jsonl`."""

    line: ReadLine
    sentence: str

    def to_json(self) -> bytes:
        place = {"file": self.line.line.path.name, "line": self.line.line.place, "id": self.line.id}
        return (json.dumps(place | {"problem": self.sentence}, ensure_ascii=False) + "\n").encode("utf-8", "replace")


class Publisher:
    """Writes examples one by one.

    Attributes:
        n_given_codes: of the examples written.
        rejected, warnings: in the order of lines.
    """

    def __init__(
        self,
        writer: DatasetWriter,
        journal: Journal,
        rules: PublishRules,
        path_of: Callable[[str, ReadLine], Path],
    ) -> None:
        """
        Args:
            path_of: the file that a path in a record means; the journal knows references by it.
        """
        self.n_given_codes = 0
        self.rejected: list[Finding] = []
        self.warnings: list[Finding] = []
        self._writer, self._journal, self._rules, self._path_of = writer, journal, rules, path_of
        self._numbers: dict[bytes, int] = {}  # of references written, by content

    def add_all(self, lines: Iterable[ReadLine]) -> None:
        for line in lines:
            try:
                self._add(line)
            except (BadRecord, BadText) as problem:
                self.rejected.append(Finding(line, str(problem)))

    def _add(self, line: ReadLine) -> None:
        record = line.record
        if record is None:
            raise BadRecord(line.problem or "")
        parts = [self._known(self._journal.target(line.line.number, i)) for i in range(len(record.targets))]
        codes = record.codes if record.codes is not None else np.concatenate([_codes(part) for part in parts])
        voices = None if record.references is None else [self._voice(one, line) for one in record.references]
        n_rows = self._prompt_rows(line, record, codes, voices)
        warnings = [clipping_warning(max((part.clipped_share for part in parts), default=0.0))]
        warnings += [check_pace(record.fields, len(codes) / self._rules.frame_rate, self._rules.max_pace)]
        self.warnings += [Finding(line, warning) for warning in warnings if warning is not None]
        self.n_given_codes += record.codes is not None
        numbers = None if voices is None else [self._number(voice) for voice in voices]
        sha256 = parts[-1].sha256 if parts else None
        self._writer.add(
            StoredExample(line.id, record.fields, codes, numbers, n_rows, n_speakers(record), sha256),
        )

    def _prompt_rows(
        self, line: ReadLine, record: Record, codes: np.ndarray, voices: list[np.ndarray | None] | None
    ) -> int:
        rules = self._rules
        example = Example(line.id, record.fields, codes, None if voices is None else tuple(voices))
        n_rows = len(prompt_rows(example, rules.tokenizer, rules.tokens, rules.template))
        n_all = int(n_input_rows(np.array(n_rows), np.array(len(codes)), rules.tokens.n_vq))
        if n_all > rules.max_rows:
            raise BadRecord(
                f"it takes {n_all} rows, {n_rows} of them its prompt, and --max-rows is {rules.max_rows}; cut it at a "
                "pause, with its text"
            )
        return n_rows

    def _voice(self, reference: str | np.ndarray | None, line: ReadLine) -> np.ndarray | None:
        """[T, n_vq] codes of a speaker."""
        if not isinstance(reference, str):
            return reference
        entry = self._known(self._journal.reference(str(self._path_of(reference, line))))
        return _codes(entry if entry.codes is not None else self._known(self._journal.voice(entry.sha256)))

    def _known(self, entry: Entry | None) -> Entry:
        assert entry is not None, "the journal is complete"
        if entry.problem is not None:
            raise BadRecord(entry.problem)
        return entry

    def _number(self, voice: np.ndarray | None) -> int:
        if voice is None:
            return NO_REFERENCE
        key = hashlib.sha256(np.ascontiguousarray(voice, np.uint16).tobytes()).digest()
        if key not in self._numbers:
            self._numbers[key] = self._writer.add_reference(voice)
        return self._numbers[key]


def _codes(entry: Entry) -> np.ndarray:
    assert entry.codes is not None, "a clip without a problem has codes"
    return entry.codes
