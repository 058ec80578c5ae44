"""One run of the judge, from a dataset to a result."""

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from sglang_moss.devices import device_problem

from .aligners import load_aligner
from .dataset import Item
from .embedders import load_embedder
from .errors import CannotJudge
from .judge import BackEnds, Judge, judge_all, part_of
from .recognisers import load_recogniser
from .results import Result
from .speaking import recordings_in
from .statistics import figures_of

NO_EMBEDDER = "none"


@dataclass(frozen=True)
class Choice:
    """Which back ends listen, by name; models None: the back end's own."""

    recogniser: str = "pocketsphinx"
    recogniser_model: str | None = None
    embedder: str = "resemblyzer"
    embedder_model: str | None = None
    aligner: str = "words"
    device: str = "cpu"

    def load(self) -> BackEnds:
        """Raises CannotJudge, with the command that helps, where one cannot be had."""
        if (problem := device_problem(self.device)) is not None:
            raise CannotJudge(f"--device: {problem}")
        embedder = None
        if self.embedder != NO_EMBEDDER:
            embedder = load_embedder(self.embedder, self.embedder_model, self.device)
        return BackEnds(
            load_recogniser(self.recogniser, self.recogniser_model, self.device),
            load_aligner(self.aligner, self.device),
            embedder,
            {name: value for name, value in vars(self).items() if name != "device"},
        )


def judge_folder(
    items: Sequence[Item],
    folder: Path,
    back_ends: BackEnds,
    out: Path,
    *,
    dataset: str,
    server: str | None,
    settings: dict[str, str | int | float | bool | None],
    on_item: Callable[[], None] = lambda: None,
) -> Result:
    """Judge the speech in a folder and write the result to `out`.

    Args:
        items: of the dataset.
        folder: of recordings, with what `speak` wrote about them.
        back_ends: what listens.
        out: the result's file; what is done is kept beside it until all is.
        dataset: as the result names it.
        server: as the result names it.
        settings: of the speech, to be told in the result.
        on_item: called after each.
    Raises:
        CannotJudge: nothing of any item is there.
        OSError: a file cannot be read, or the result not be written.
    """
    judge = Judge(items, back_ends)
    scores = judge_all(judge, items, recordings_in(folder, items), out, on_item)
    result = Result(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=dataset,
        server=server,
        settings={**back_ends.names, **settings},
        versions={
            **back_ends.versions,
            **{name: version(name) for name in ("sglang-moss", "jiwer", "whisper-normalizer", "scipy")},
            "python": platform.python_version(),
        },
        figures=figures_of(scores),
        flags=dict(Counter(flag for score in scores if score.signal for flag in score.signal.flags)),
        n_failed=sum(score.problem is not None for score in scores),
        items=scores,
    )
    result.write(out)
    part_of(out).unlink(missing_ok=True)
    return result
