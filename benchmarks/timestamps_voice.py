"""How exactly times of turns are estimated in speech of the small voice, as the real server makes it.

    python -m sglang_moss.benchmarks.timestamps_voice --out results/timestamps_cpu.jsonl

The small voice says in the first of its codebooks which letter each frame of 80 ms speaks, or that none does
(`recipes/small_voice/letter_book.py`). Nothing of that is heard, and the estimate knows the sound alone; so the
letters, laid over the script's, tell when each turn is spoken, to half a frame. Dialogues are of sentences that no
training speech has, by two speakers; where turns have two of them, pauses lie inside of a turn as between two. A
dialogue in which words are left out is counted (`dialogues`, less those that are `whole`), and no more: nobody can say
when they are heard.
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sglang_moss.request.turns import Turn
from sglang_moss.turn_times.timing import by_length, expected_turns

from ..clients.client import MossClient
from ..clients.local_server import SGLANG_SERVE, LocalServer
from ..clients.request import Reference
from ..clients.small_voice import VOICES, Clip, clips_in, default_pair
from ..clients.speech import Speech
from .judging.spoken_letters import Letters, spoken_times
from .judging.texts import held_out_sentences
from .runs.exiting import exit_on_sigterm
from .runs.record import record
from .timestamps import errors_of, figures

_ENV = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
_AT_ONCE = 4
_MAX_SECONDS = 45.0


@dataclass(frozen=True)
class Kind:
    """Of dialogues: how many turns, and how many sentences each."""

    name: str
    n_turns: tuple[int, int]
    n_sentences: tuple[int, int]


KINDS = (
    Kind("small voice, a sentence a turn", (2, 4), (1, 1)),
    Kind("small voice, one or two sentences a turn", (2, 3), (1, 2)),
)


@dataclass(frozen=True)
class Script:
    """What is asked for."""

    turns: list[Turn]
    voices: tuple[Clip, Clip]
    seed: int

    @property
    def text(self) -> str:
        return "".join(f"[S{turn.speaker}]{turn.words}" for turn in self.turns)


def scripts_of(kind: Kind, sentences: Sequence[str], clips: Sequence[Clip], rounds: int) -> list[Script]:
    """Dialogues in which each sentence is said about once a round, in another order and company each time."""
    rng = random.Random(kind.name)
    pairs, scripts = list(permutations(clips, 2)), []
    for _ in range(rounds):
        left = rng.sample(sentences, len(sentences))
        while left:
            turns = []
            for k in range(rng.randint(*kind.n_turns)):
                n = rng.randint(*kind.n_sentences)
                if words := " ".join(left[:n]):
                    turns.append(Turn(1 + k % 2, words))
                left = left[n:]
            if len(turns) > 1:
                scripts.append(Script(turns, pairs[len(scripts) % len(pairs)], len(scripts)))
    return scripts


def measure(kind: Kind, scripts: Sequence[Script], letters: Letters, url: str) -> dict[str, Any]:
    """One line."""
    with MossClient(url, timeout_s=600.0) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda script: _spoken(client, script), scripts))
    found: dict[str, list[np.ndarray]] = {"estimate": [], "share": [], "share_of_sound": []}
    n_borders, audio_s = 0, 0.0
    for script, speech in zip(scripts, answers, strict=True):
        frames = letters.by_code[np.array(speech.codes)[:, 0]]
        truth = spoken_times(frames, [letters.of(turn.words) for turn in script.turns])
        if truth is None or speech.finish_reason != "stop" or speech.turns is None:
            continue
        expected = expected_turns(script.turns)
        told = np.array([(turn.start, turn.end) for turn in speech.turns])
        found["estimate"].append(errors_of(told, truth))
        found["share"].append(errors_of(by_length(expected, 0.0, speech.seconds), truth))
        found["share_of_sound"].append(errors_of(by_length(expected, truth[0, 0], truth[-1, 1]), truth))
        n_borders, audio_s = n_borders + len(script.turns) - 1, audio_s + speech.seconds
    line: dict[str, Any] = {"kind": kind.name, "dialogues": len(scripts), "whole": len(found["estimate"])}
    line |= {"borders": n_borders, "audio_seconds": round(audio_s, 1)}
    return line | {name: figures(np.concatenate(off)) for name, off in found.items() if off}


def _spoken(client: MossClient, script: Script) -> Speech:
    references = [Reference(clip.path) for clip in script.voices]
    how: dict[str, Any] = {"seed": script.seed, "max_seconds": _MAX_SECONDS}
    return client.generate(script.text, references, return_codes=True, timestamps=True, **how)


def main(
    rounds: Annotated[int, typer.Option(help="How often each sentence is said, of each kind.", min=1)] = 3,
    out: Annotated[Path, typer.Option()] = Path("timestamps.jsonl"),
) -> None:
    """Serve the small voice on two cores, measure, and append a line for each kind of dialogue."""
    exit_on_sigterm()
    sentences, clips = held_out_sentences(), clips_in(VOICES)

    def measured() -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            fused, log = Path(folder) / "fused", Path(folder) / "server.log"
            pair = default_pair()
            pair.fuse(fused)
            letters = Letters.of_codec(pair.codec)
            with LocalServer(fused, log=log, env=_ENV, command=SGLANG_SERVE) as server:
                for kind in KINDS:
                    yield measure(kind, scripts_of(kind, sentences, clips, rounds), letters, server.url)

    record(out, measured())


if __name__ == "__main__":
    typer.run(main)
