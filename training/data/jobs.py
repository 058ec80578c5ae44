"""Which clips of an input have no codes yet, in its order; each reference once."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sglang_moss.audio.loading import ReferenceLimits

from .errors import DataError
from .journal import Entry, Journal
from .messages import FileStamp
from .pipeline import Job
from .progress import Progress
from .reading import ReadLine

FORM_NOTES = {
    "transcript": "{file_path, full_transcript} is learnt as {audio, text}",
    "pair": (
        "{reference_audio, reference_text, audio, text} is learnt as one: both clips, one after the other, are the "
        "target, and reference_text stands in front of text; for a cloned voice write {audio, text, reference}"
    ),
    "prompts": (
        "prompt_audio_speakerN is learnt as the reference of speaker N; prompt_text_speakerN is not used, since "
        "references have no transcript"
    ),
    "shared": (
        "prompt_audio with prompt_text is learnt as the beginning of the target and of the text, since a clip that "
        "speakers share is nobody's reference"
    ),
}


class Jobs:
    """Iterates over an input's jobs.

    Args:
        max_frames: of a target's clip.
        frame_samples: of the codec.
        sampling_rate: of the codec, in Hz.
    """

    def __init__(
        self,
        lines: Iterable[ReadLine],
        journal: Journal,
        path_of: Callable[[str, ReadLine], Path],
        max_frames: int,
        frame_samples: int,
        sampling_rate: int,
        progress: Progress,
    ) -> None:
        self._lines, self._journal, self._path_of = lines, journal, path_of
        self._max_target = (max_frames + 1) * frame_samples - 1
        self._max_reference = round(ReferenceLimits.max_seconds * sampling_rate)
        self._progress = progress
        self._forms: set[str] = set()
        self._seen_references: set[str] = set()

    def __iter__(self) -> Iterator[Job]:
        for line in self._lines:
            if line.record is None:
                self._progress.problem(f"{line.where}: {line.problem}")
                self._progress.records(1)
                continue
            self._tell_form(line.record.form)
            jobs = [*self._of_target(line, line.record.targets), *self._of_references(line, line.record.clips)]
            if not any(job.is_last_of_record for job in jobs):
                self._progress.records(1)
            yield from jobs

    def _of_target(self, line: ReadLine, targets: tuple[str, ...]) -> Iterator[Job]:
        for part, clip in enumerate(targets):
            path = self._path_of(clip, line)
            entry = self._journal.target(line.line.number, part)
            if entry is None or _is_to_be_done_again(entry, path, line):
                is_last = part == len(targets) - 1
                yield Job((line.line.number, part), path, self._max_target, line.where, is_last)

    def _of_references(self, line: ReadLine, clips: list[str]) -> Iterator[Job]:
        for clip in clips:
            path = self._path_of(clip, line)
            if str(path) in self._seen_references:
                continue
            self._seen_references.add(str(path))
            entry = self._journal.reference(str(path))
            if entry is None or _is_to_be_done_again(entry, path, line):
                yield Job(str(path), path, self._max_reference, line.where)

    def _tell_form(self, form: str) -> None:
        if form not in self._forms and form in FORM_NOTES:
            self._progress.say(f"note: {FORM_NOTES[form]}")
        self._forms.add(form)


def _is_to_be_done_again(entry: Entry, path: Path, line: ReadLine) -> bool:
    """Whether a clip that failed is another one now.

    Raises:
        DataError: one that did not is: what was encoded is not what is there.
    """
    if FileStamp.of(path) == entry.stamp:
        return False
    if entry.problem is None:
        raise DataError(
            f"{path} (line {line.line.place}) has changed since it was encoded: put the old one back, or begin again "
            "with --overwrite"
        )
    return True
