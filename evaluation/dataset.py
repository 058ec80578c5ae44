"""What is to be spoken and judged: a JSONL file as `moss-ttsd batch` reads it, or a folder of such files.

    DIR/en.jsonl, DIR/zh/test.jsonl, ...     a folder: its *.jsonl and those one folder down, clips relative to the file
    FILE.jsonl                               one file; clips relative to `base_path`, or to where the command runs

    {"id": "tv_07", "language": "en", "text": "[S1] ... [S2] ...",
     "prompt_audio_speaker1": "a.wav", "prompt_text_speaker1": "...", ...}

`id` and `language` ("en" or "zh") may be left out: then a line is called by its number, and read as Chinese if half of
its letters are. The published dialogue evaluation (TTSD-eval) describes its data, 100 dialogues in Chinese and English
with a clip of each speaker, and says that they will be published; the fields read here are those of the reference's own
batch script, which its other data sets have.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sglang_moss.request.script import read_script
from sglang_moss.request.text import merge_speaker_tags
from sglang_moss.request.turns import Turn, turns_of

from ..clients.batch_lines import BadLine, BatchLine
from ..clients.text_file import text_of
from .errors import CannotJudge
from .spoken_words import language_of

Language = Literal["en", "zh"]
_LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Item:
    """One dialogue.

    Attributes:
        id: unique in its dataset.
        number: from 1, its place in the dataset; what is spoken is named by it.
        turns: what is spoken, in order; at least one. Words before the first tag are the first speaker's.
        clips: reference of each speaker who has one; a string is a URL.
        shared_clip, shared_text: of a clip that holds all speakers, and its transcript with tags.
        fields: of the line, paths made absolute, as `moss-ttsd batch` takes them.
    """

    id: str
    number: int
    language: Language
    turns: tuple[Turn, ...]
    clips: dict[int, Path | str]
    shared_clip: Path | str | None
    shared_text: str | None
    fields: dict[str, Any]


def read_dataset(path: Path) -> list[Item]:
    """All items of a file or folder, in order.

    Raises:
        CannotJudge: no line, one that cannot be spoken, or two with one id; the message names file and line.
        OSError: a file cannot be read.
    """
    files = _files(path)
    items: list[Item] = []
    for file in files:
        folder = file.parent.resolve() if path.is_dir() else None
        for line, raw in enumerate(text_of(file.read_bytes(), str(file)).split("\n"), start=1):
            if raw.strip():
                try:
                    items.append(_item(raw, len(items) + 1, folder))
                except (BadLine, CannotJudge) as error:
                    raise CannotJudge(f"{file}, line {line}: {error}") from None
    if not items:
        raise CannotJudge(f"{path} holds no line to speak")
    [(most_used, times)] = Counter(item.id for item in items).most_common(1)
    if times > 1:
        raise CannotJudge(f"{path}: {times} lines have the id {most_used!r}; give each its own, or none")
    return items


def write_lines(items: list[Item], path: Path) -> None:
    """The items as one file for `moss-ttsd batch`: line k is the item with the number k."""
    path.write_text("".join(json.dumps(item.fields, ensure_ascii=False) + "\n" for item in items), "utf-8")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.jsonl")) or sorted(path.glob("*/*.jsonl"))
    if not found:
        raise CannotJudge(f"{path} holds no *.jsonl, and neither does a folder in it")
    return found


def _item(raw: str, number: int, folder: Path | None) -> Item:
    if folder is not None:
        raw = _with_base(raw, folder)
    fields = BatchLine.from_json(raw.encode()).fields
    text = read_script(fields["text"].removeprefix("${normalize_text}")).text or ""
    turns = tuple(turns_of(merge_speaker_tags(text.replace("\n", " "))))
    turns = tuple(Turn(1, turn.words) if turn.speaker in (None, 0) else turn for turn in turns)
    language = fields.get("language") or language_of(" ".join(turn.words for turn in turns))
    if language not in _LANGUAGES:
        raise CannotJudge(f"language: expected {' or '.join(_LANGUAGES)}, got {language!r}")
    own_id = fields.get("id")
    if not isinstance(own_id, str | int | None):
        raise CannotJudge(f"id: expected a string, got {type(own_id).__name__}")
    shared = fields.get("prompt_audio")
    return Item(
        id=f"{number:06}" if own_id in (None, "") else str(own_id),
        number=number,
        language=language,
        turns=turns,
        clips={k: _clip(fields[f"prompt_audio_speaker{k}"]) for k in _speakers_with_clip(fields)},
        shared_clip=_clip(shared) if shared else None,
        shared_text=fields.get("prompt_text") if shared else None,
        fields=fields,
    )


def _with_base(raw: str, folder: Path) -> str:
    try:
        line = json.loads(raw)
    except ValueError:
        return raw  # refused where it is read
    if isinstance(line, dict):
        line["base_path"] = str(folder / str(line.get("base_path") or ""))
    return json.dumps(line)


def _speakers_with_clip(fields: dict[str, Any]) -> list[int]:
    return [k for k in range(1, 6) if str(fields.get(f"prompt_audio_speaker{k}") or "").strip()]


def _clip(value: str) -> Path | str:
    return value if "://" in value or value.startswith("data:") else Path(value)
