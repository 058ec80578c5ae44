"""What the benchmarks ask for: scripts, voices and lengths, all of it decided by a seed."""

import hashlib
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from ...clients import Mode, Reference, Settings
from ...clients.client import encoded
from ...clients.request import request_body
from .synthetic_voice import synthetic_clip

FRAMES_PER_SECOND = 12.5  # of the published codec
WORDS_PER_SECOND = 2.5
_TURN_SECONDS = 5.0
_DESCRIPTION_WORDS = 12
_WORDS = """
    the and we not about over should after while at like such on talk home road train rain sun song radio dog fox leaves
    markets weather tonight football bags lazy brown quick slow long roof nine are do play appear hurry a
""".split()  # noqa: SIM905 (a list of words reads as one)


@dataclass(frozen=True)
class Workload:
    """One kind of request.

    Attributes:
        seconds: of speech asked for.
        reference_seconds: length of each reference clip, one clip a speaker.
        spread: lengths are drawn from `seconds` times 1 - spread to 1 + spread, evenly; 0: all are alike, and the
            clients of a closed loop come back together.
        profile: of the models that take it, see `sglang_moss.request.profile`.
    """

    name: str
    seconds: float
    n_speakers: int
    reference_seconds: float = 10.0
    spread: float = 0.0
    profile: str = "ttsd"

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * FRAMES_PER_SECOND))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("short", seconds=5.0, n_speakers=1),
        Workload("dialogue", seconds=30.0, n_speakers=2),
        Workload("long", seconds=600.0, n_speakers=2),
    )
}
FAMILY_WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("narration", seconds=30.0, n_speakers=1, profile="tts"),
        Workload("design", seconds=10.0, n_speakers=0, profile="voice"),
        Workload("sound", seconds=10.0, n_speakers=0, profile="sound"),
    )
}


def share(text: str) -> float:
    """An argument of the command line: from 0 to below 1.

    Raises:
        ValueError: it is not.
    """
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value


def script(workload: Workload, seed: int) -> str:
    """As many words as the speech has time for; in a dialogue the speakers take turns of about 5 s."""
    words = random.Random(seed)
    if workload.profile != "ttsd":
        return _sentence(words, max(1, round(workload.seconds * WORDS_PER_SECOND)))
    n_turns = max(workload.n_speakers, round(workload.seconds / _TURN_SECONDS))
    n_words = max(n_turns, round(workload.seconds * WORDS_PER_SECOND))
    bounds = [n_words * turn // n_turns for turn in range(n_turns + 1)]
    turns = (
        f"[S{turn % workload.n_speakers + 1}] {_sentence(words, end - start)}"
        for turn, (start, end) in enumerate(pairwise(bounds))
    )
    return " ".join(turns)


@lru_cache(maxsize=8)
def synthetic_references(workload: Workload, seed: int) -> tuple[Reference, ...]:
    """A made-up clip with a made-up transcript for every speaker."""
    n_words = max(1, round(workload.reference_seconds * WORDS_PER_SECOND))
    seeds = [_seed(seed, "speaker", speaker) for speaker in range(workload.n_speakers)]
    return tuple(
        Reference(synthetic_clip(workload.reference_seconds, s), _sentence(random.Random(s), n_words)) for s in seeds
    )


@dataclass(frozen=True)
class RequestMaker:
    """Makes the bodies of one case's requests; the same arguments make the same bodies.

    Attributes:
        case: its name; two cases share no script, since the server would know the second one's prompts.
        references: given ones; None: made up, the same for all cases unless `uncached_references`.
        uncached_references: a new clip for every speaker of every request.
        same_script: one script for all requests.
        free_length: the model decides where the speech ends, at most at 4 times the workload's length.
        first_frames: of a stream's first event; None: the server's default.
        timings: whether a stream tells the way of its first event.
        folder: the server's `--reference-root`, on this machine: clips lie there, and requests name them; None: they
            carry them.
    """

    workload: Workload
    seed: int = 0
    case: str = ""
    references: Sequence[Reference] | None = None
    mode: Mode | None = None
    stream: bool = False
    same_script: bool = False
    uncached_references: bool = False
    free_length: bool = False
    first_frames: int | None = None
    timings: bool = False
    folder: Path | None = None

    def body(self, index: int) -> bytes:
        """The encoded body of measured request `index`."""
        return self._body(_seed(self.seed, self.case, index), self.frames(index))

    def frames(self, index: int) -> int:
        """Length of measured request `index`, the same in every case."""
        factor = random.Random(_seed(self.seed, "length", index)).uniform(-1, 1) * self.workload.spread
        return max(1, round(self.workload.frames * (1 + factor)))

    def warm_up_body(self, index: int, seconds: float) -> bytes:
        """A request of `seconds` with a script that no measured request has, and the voices that they share."""
        return self._body(_seed(self.seed, self.case, "warm-up", index), max(1, round(seconds * FRAMES_PER_SECOND)))

    def voices(self) -> Sequence[Reference]:
        """The clips that all requests share."""
        return self.references or synthetic_references(self.workload, self.seed)

    def _body(self, seed: int, n_frames: int) -> bytes:
        settings = Settings(
            max_seconds=n_frames * (4 if self.free_length else 1) / FRAMES_PER_SECOND,
            exact_length=not self.free_length,
            seed=seed,
            mode=self.mode,
            first_frames=self.first_frames,
            timings=self.timings,
        )
        text = script(self.workload, self.seed if self.same_script else seed)
        match self.workload.profile:
            case "voice":
                settings["instruction"] = _sentence(random.Random(seed), _DESCRIPTION_WORDS)
            case "sound":
                text, settings["ambient_sound"] = "", text
        references = self.references
        if references is None:
            references = synthetic_references(self.workload, seed if self.uncached_references else self.seed)
            if self.workload.profile == "tts":  # which clones them
                references = [Reference(reference.audio) for reference in references]
        body = request_body(text, references, settings)
        if self.folder is not None:
            body["audio_data"] = [_written(self.folder, reference.audio) for reference in references]
        return encoded(body, stream=self.stream)


def _written(folder: Path, clip: bytes | str | Path) -> str:
    """The path of a clip in a folder; written if it is not there."""
    assert isinstance(clip, bytes)
    path = folder.resolve() / f"{hashlib.blake2b(clip, digest_size=8).hexdigest()}.wav"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(clip)
        part.replace(path)
    return str(path)


def _seed(*parts: object) -> int:
    return random.Random("/".join(map(str, parts))).getrandbits(62)


def _sentence(words: random.Random, n_words: int) -> str:
    return " ".join(words.choices(_WORDS, k=n_words)).capitalize() + "."
