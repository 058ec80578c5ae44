"""Judges items one by one, and keeps what is done, so that a run that was broken off goes on.

`RESULT.part.jsonl` has a line for every item that is done: its score, and a fingerprint of all that the score depends
on: the sound, the line of the dataset, the references, back ends and their versions. It goes when the result is there.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..clients.batch_record import fingerprint
from .aligners import Aligner, spans_of
from .clips import read_clip
from .dataset import Item
from .embedders import Embedder
from .error_rates import character_errors, word_errors
from .errors import CannotJudge
from .recognisers import Recogniser
from .results import ItemScore
from .signal_checks import check_signal
from .speaking import Recording
from .spoken_words import tokens_of
from .voices import References, score_turns


@dataclass(frozen=True)
class BackEnds:
    """What listens; without an embedder nothing is said about voices."""

    recogniser: Recogniser
    aligner: Aligner
    embedder: Embedder | None
    names: dict[str, str | None]  # as they were chosen, models too

    @property
    def versions(self) -> dict[str, str]:
        own = self.embedder.versions if self.embedder else {}
        return dict(sorted({**self.recogniser.versions, **self.aligner.versions, **own}.items()))


class Judge:
    """Scores items.

    Raises:
        CannotJudge: a dataset in a language that the recogniser does not know.
    """

    def __init__(self, items: Sequence[Item], back_ends: BackEnds) -> None:
        known = back_ends.recogniser.languages
        if known is not None and (strange := [item for item in items if item.language not in known]):
            raise CannotJudge(
                f"{back_ends.names['recogniser']} does not know the language of {len(strange)} items, "
                f'{strange[0].language!r} in {strange[0].id!r}; choose another --recogniser, or set "language"'
            )
        self._back_ends = back_ends
        self._references: References | None = None
        if back_ends.embedder is not None:
            self._references = References(back_ends.embedder, back_ends.aligner, back_ends.recogniser)

    def score(self, item: Item, recording: Recording, below: Path) -> ItemScore:
        """Judge one item; `below`: the folder that paths of audio are relative to, where they lie in it."""
        path = recording.path
        shown = None if path is None else _relative(path, below)
        if path is None:
            return ItemScore(id=item.id, language=item.language, audio=shown, problem=recording.problem)
        try:
            samples, original = read_clip(path)
            heard = self._back_ends.recogniser.hear(samples, item.language)
            spans = spans_of(self._back_ends.aligner, samples, item.turns, item.language, heard)
        except (CannotJudge, OSError) as error:
            return ItemScore(id=item.id, language=item.language, audio=shown, problem=str(error))
        voices, notes = self._references.of(item) if self._references else ({}, [])
        said = [token for turn in item.turns for token in tokens_of(turn.words, item.language)]
        answer = tokens_of(heard.text, item.language)
        return ItemScore(
            id=item.id,
            language=item.language,
            audio=shown,
            said=" ".join(said),
            heard=" ".join(answer),
            heard_text=heard.text,
            words=word_errors(said, answer),
            characters=character_errors(said, answer),
            turns=score_turns(item, spans, samples, voices, self._back_ends.embedder),
            signal=check_signal(samples, original, item.turns),
            notes=[*recording.notes, *notes],
        )

    def fingerprint(self, item: Item, recording: Recording) -> str:
        """Of all that the score of an item depends on."""
        clips = [clip for clip in [*item.clips.values(), item.shared_clip] if isinstance(clip, Path)]
        digests = [_digest(path) for path in [recording.path, *clips] if path is not None]
        turns = [str(turn) for turn in item.turns]
        return fingerprint(
            item.id, item.language, turns, item.shared_text, digests, self._back_ends.names, self._back_ends.versions
        )


def judge_all(
    judge: Judge,
    items: Sequence[Item],
    recordings: Sequence[Recording],
    result: Path,
    on_item: Callable[[], None],
) -> list[ItemScore]:
    """Scores of all items, in their order; those of an earlier run that still hold are taken over."""
    part = part_of(result)
    done = _done_before(part)
    scores = []
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("a", encoding="utf-8") as file:
        for item, recording in zip(items, recordings, strict=True):
            mark = judge.fingerprint(item, recording)
            score = done.get(mark) if recording.path else None
            if score is None:
                score = judge.score(item, recording, result.parent)
                file.write(json.dumps({"fingerprint": mark, "score": score.model_dump(mode="json")}) + "\n")
                file.flush()
            scores.append(score)
            on_item()
    return scores


def part_of(result: Path) -> Path:
    """Where scores stand until all are there."""
    return result.with_name(f"{result.name}.part.jsonl")


def _done_before(part: Path) -> dict[str, ItemScore]:
    """Scores by fingerprint; a line that a killed run left half written is cut off."""
    done: dict[str, ItemScore] = {}
    try:
        lines = part.read_bytes().splitlines(keepends=True)
    except OSError:
        return done
    end = 0
    for line in lines:
        try:
            record = json.loads(line)
            done[record["fingerprint"]] = ItemScore.model_validate(record["score"])
        except (ValueError, KeyError, TypeError):  # pydantic's is a ValueError
            break
        end += len(line)
    os.truncate(part, end)
    return done


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    except OSError:
        return ""  # told where it is read


def _relative(path: Path, folder: Path) -> str:
    absolute, folder = path.absolute(), folder.absolute()
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)
