"""Lines to checked records, the same in every pass over the input."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from sglang_moss.errors import BadText
from sglang_moss.request.ordinary_text import ordinary_script
from sglang_moss.request.text import normalize_text

from .checks import check_record
from .errors import BadRecord
from .inputs import Line, lines_of
from .records import Record, id_of, read_record

Normalizer: TypeAlias = Literal["none", "generate", "ordinary"]
NORMALIZERS: tuple[Normalizer, ...] = get_args(Normalizer)

_NORMALIZED: Mapping[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "generate": normalize_text,  # as `${normalize_text}` of /generate
    "ordinary": lambda text: normalize_text(ordinary_script(text, "text")),  # as the speech API
}


@dataclass(frozen=True)
class ReadingRules:
    """How lines are read.

    Attributes:
        n_vq: codebooks of the codes; more in a record are left out.
        codebook_size: codes are below it.
        special_strings: of the tokenizer, see `prompt.special_strings`.
    """

    normalizer: Normalizer
    ignore_unknown: bool
    n_vq: int
    codebook_size: int
    special_strings: Set[str]


@dataclass(frozen=True)
class ReadLine:
    """A line, its id, and its record or what is wrong with it."""

    line: Line
    id: str
    record: Record | None
    problem: str | None

    @property
    def where(self) -> str:
        """How it is named to people."""
        return f"{self.line.path.name}:{self.line.place} ({self.id})"


def read_lines(paths: Sequence[Path], rules: ReadingRules) -> Iterator[ReadLine]:
    """All lines, checked; of two with the same id the second is a problem. Memory: 16 bytes an id, and Python's own."""
    seen: dict[bytes, int] = {}
    for line in lines_of(paths):
        name = line.default_id
        try:
            content = line.content()
            name = id_of(content) or name
            record = _checked(read_record(content, ignore_unknown=rules.ignore_unknown), rules)
            key = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if (before := seen.setdefault(key, line.number)) != line.number:
                place = before - line.number + line.place
                where = f"line {place}" if place > 0 else "a line of an earlier file"
                raise BadRecord(f"{where} has the same id: ids must be unique")
            yield ReadLine(line, name, record, None)
        except BadRecord as problem:
            yield ReadLine(line, name, None, str(problem))


def resolve(clip: str, line: Line, base_dir: Path | None) -> Path:
    """The file that a path in a record means.

    Args:
        base_dir: where relative paths begin; None: in the working directory, or else beside the JSONL file.
    """
    if base_dir is not None:
        return base_dir / clip
    here = Path(clip)
    return here if here.is_absolute() or here.exists() else _beside(here, line)


def _beside(clip: Path, line: Line) -> Path:
    other = line.path.parent / clip
    return other if other.exists() else clip


def _checked(record: Record, rules: ReadingRules) -> Record:
    fields = dict(record.fields)
    if "text" in fields:
        try:
            fields["text"] = _NORMALIZED[rules.normalizer](str(fields["text"]))
        except BadText as error:
            raise BadRecord(str(error)) from None
    record = replace(record, fields=fields)
    check_record(record, rules.special_strings)
    codes = None if record.codes is None else _codes(record.codes, "audio_codes", rules)
    references = record.references and tuple(
        _codes(one, "reference codes", rules) if isinstance(one, np.ndarray) else one for one in record.references
    )
    return replace(record, codes=codes, references=references)


def _codes(codes: np.ndarray, name: str, rules: ReadingRules) -> np.ndarray:
    """[T, n_vq] of given codes."""
    if codes.shape[1] < rules.n_vq:
        raise BadRecord(f"{name}: expected {rules.n_vq} codebooks, got {codes.shape[1]}: prepare the record again")
    codes = codes[:, : rules.n_vq]
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= rules.codebook_size:
        raise BadRecord(f"{name}: codes go from 0 to {rules.codebook_size - 1}, got {low} to {high}: another codec's?")
    return codes
