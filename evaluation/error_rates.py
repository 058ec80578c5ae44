"""Word and character errors of what was heard, by jiwer's alignment, and where they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import load
from .results import Errors
from .spoken_words import INSTALL, characters_of


@dataclass(frozen=True)
class Piece:
    """A run of tokens in the alignment of script and answer."""

    kind: str  # equal, substitute, delete, insert
    said: tuple[int, int]  # tokens of the script, from and to
    heard: tuple[int, int]


def word_errors(said: list[str], heard: list[str]) -> Errors:
    """Errors in tokens; a script without any counts whatever was heard as inserted."""
    if not said:
        return Errors(n=0, substituted=0, deleted=0, inserted=len(heard))
    found = _aligned(said, heard)
    return Errors(n=len(said), substituted=found.substitutions, deleted=found.deletions, inserted=found.insertions)


def character_errors(said: list[str], heard: list[str]) -> Errors:
    """Errors in characters, blanks left out."""
    return word_errors(list(characters_of(said)), list(characters_of(heard)))


def pieces_of(said: list[str], heard: list[str]) -> Iterator[Piece]:
    """How the two lie side by side."""
    if not said:
        if heard:
            yield Piece("insert", (0, 0), (0, len(heard)))
        return
    for chunk in _aligned(said, heard).alignments[0]:
        yield Piece(chunk.type, (chunk.ref_start_idx, chunk.ref_end_idx), (chunk.hyp_start_idx, chunk.hyp_end_idx))


def _aligned(said: list[str], heard: list[str]) -> Any:
    return load("jiwer", "the judge", INSTALL).process_words(" ".join(said), " ".join(heard))
