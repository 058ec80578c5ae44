"""What the language model learns from: dialogues of encoded utterances, written as the server writes requests.

Example e of a seed is always the same. What it may be:

    speakers       one, or two to four with a voice each, in turn
    references     another utterance of each voice; or none, so that the voice is anybody's
    continuation   the dialogue begins with the references themselves and their words, in the speakers' order
    text           normalised (turns glued to their tags), or with a blank after each tag, as people write
    growing        the first part of the run has single utterances alone, short ones first; dialogues come after

Utterances begin and end in silence, so their codes may follow each other.

Where the checkpoint has a codebook more than the codes, the first is of letters (`letter_book`), as `alignment` has
found them; references, and what is continued, are shown without.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.request.prompt import Tokenizer
from sglang_moss.training.example import Example

from .alignment import LETTERS
from .encode import CODES
from .letter_book import UNKNOWN, codes_of_pairs
from .prompt_overheads import Overheads

SINGLES_FIRST = 300_000  # examples that are single utterances, or three tenths where there are fewer
SINGLE_SHARE = 0.35  # of those after
SPEAKERS = {2: 0.75, 3: 0.15, 4: 0.10}
REFERENCES, CONTINUES, SPACED, UNTAGGED = 0.8, 0.3, 0.25, 0.03
MAX_FRAMES = 420
REFERENCE_FRAMES = (18, 80)
HELD_OUT = 64  # every so-manieth utterance


def n_first(n_examples: int) -> int:
    """How many of so many examples are single utterances, short ones first, before everything else comes."""
    return min(SINGLES_FIRST, int(0.3 * n_examples))


@dataclass(frozen=True)
class Script:
    """An example as utterances."""

    turns: list[tuple[int, list[int]]]  # speaker from 0, and its utterances
    references: list[int] | None  # an utterance for each speaker
    continues: bool
    is_spaced: bool
    is_tagged: bool

    @property
    def n_speakers(self) -> int:
        return 1 + max(speaker for speaker, _ in self.turns)

    def spoken(self) -> list[tuple[int, list[int]]]:
        """Turns with the references in front, where they are continued; neighbours of one speaker are one."""
        turns = [(k, [i]) for k, i in enumerate(self.references or ())] if self.continues else []
        return turns + self.turns


class Dialogues:
    """`training.loading.Examples`, put together as they are asked for."""

    def __init__(
        self,
        directory: Path,
        n_examples: int,
        seed: int,
        tokenizer: Tokenizer,
        tokens: SpecialTokens,
        *,
        part: str,
    ) -> None:
        """
        Args:
            directory: of `encode`.
            n_examples: how many there shall be.
            seed: of all of them.
            tokenizer: of the checkpoint.
            tokens: of the checkpoint; its n_vq may be less than the codec's codebooks, or one more.
            part: `training` or `validation`, which share no utterance.
        """
        self._settings = (directory, n_examples, seed, tokenizer, tokens, part)
        self._n, self._seed, self._tokens, self._part = n_examples, seed, tokens, part
        index = np.load(directory / "index.npz")
        self._frames, voices, self._n_tokens = index["n_frames"], index["voices"], index["n_tokens"]
        self._texts: list[list[str]] = json.loads((directory / "texts.json").read_text(encoding="utf-8"))
        total = int(self._frames.sum())
        self._codes = np.memmap(directory / CODES, np.uint16, "r").reshape(total, -1)
        self._letters = None
        if tokens.n_vq > self._codes.shape[1]:
            if tokens.n_vq > self._codes.shape[1] + 1:
                raise ValueError(f"{directory} has {self._codes.shape[1]} codebooks, the checkpoint {tokens.n_vq}")
            pairs = np.memmap(directory / LETTERS, np.uint8, "r").reshape(total, 2)
            self._letters = codes_of_pairs(tokens.pad_code)[pairs[:, 0], pairs[:, 1]]
        self._starts = np.concatenate([[0], np.cumsum(self._frames, dtype=np.int64)])
        is_held_out = np.arange(len(voices)) % HELD_OUT == 0
        own = is_held_out if part == "validation" else ~is_held_out
        is_long = (self._frames >= REFERENCE_FRAMES[0]) & (self._frames <= REFERENCE_FRAMES[1])
        names = np.unique(voices[own])
        by_length = np.argsort(self._frames, kind="stable")
        self._of_voice = [by_length[(own & (voices == v))[by_length]].tolist() for v in names]
        self._long_of_voice = [np.flatnonzero(own & (voices == v) & is_long).tolist() for v in names]
        self._frames_list = self._frames.tolist()
        self._overheads = Overheads(tokenizer, tokens)
        self.ids = _Numbers(n_examples)
        self.n_frames = self.n_prompt_rows = np.zeros(0, np.int32)

    def measure(self, numbers: Sequence[int] | None = None) -> np.ndarray:
        """[n, 2] int32 frames and prompt rows of examples by number, or of all."""
        found = np.empty((self._n if numbers is None else len(numbers), 2), np.int32)
        for at, e in enumerate(range(self._n) if numbers is None else numbers):
            script = self.script(e)
            found[at] = self._frames_of(script), self._prompt_rows_of(script)
        return found

    def take(self, measured: np.ndarray) -> "Dialogues":
        """With the lengths of all examples, from `measure`."""
        self.n_frames, self.n_prompt_rows = measured[:, 0].copy(), measured[:, 1].copy()
        return self

    @property
    def has_letters(self) -> bool:
        """Whether the first codebook is of letters."""
        return self._letters is not None

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, e: int) -> Example:
        script = self.script(e)
        spoken = [i for _, utterances in script.spoken() for i in utterances]
        codes, shown = np.concatenate([self.codes_of(i) for i in spoken]), None
        references = None if script.references is None else tuple(map(self.codes_of, script.references))
        if self._letters is not None:
            codes[:, 0] = np.concatenate([self._letters[self._starts[i] : self._starts[i + 1]] for i in spoken])
            if references is not None and script.continues:
                shown = codes.copy()
                shown[: sum(map(len, references)), 0] = UNKNOWN
        return Example(self.ids[e], {"text": self.text_of(script)}, codes, references, shown)

    def __reduce__(self) -> Any:
        """A worker process opens the files itself."""
        return _reopened, (*self._settings, np.stack([self.n_frames, self.n_prompt_rows], 1))

    def codes_of(self, utterance: int) -> np.ndarray:
        """[T, n_vq] int32, as the codec gives them: no letter is known."""
        span = slice(self._starts[utterance], self._starts[utterance + 1])
        codes = self._codes[span, : self._tokens.n_vq].astype(np.int32)
        if self._letters is None:
            return codes
        return np.pad(codes, ((0, 0), (1, 0)), constant_values=UNKNOWN)

    def script(self, e: int) -> Script:
        """Example `e` as utterances."""
        rng = random.Random(self._seed * 1_000_003 + e)
        first = n_first(self._n)
        is_single = e < first or rng.random() < SINGLE_SHARE
        share = min(1.0, 0.1 + 0.9 * e / max(1, first))  # of the utterances, the shortest ones
        if self._part == "validation":
            is_single, share = e % 2 == 0, 1.0
        n_speakers = 1 if is_single else rng.choices(list(SPEAKERS), list(SPEAKERS.values()))[0]
        voices = rng.sample(range(len(self._of_voice)), min(n_speakers, len(self._of_voice)))
        references = None
        n_frames = 0
        if rng.random() < REFERENCES:
            references = [rng.choice(self._long_of_voice[v] or self._of_voice[v]) for v in voices]
        continues = references is not None and rng.random() < CONTINUES
        if references is not None and continues:
            n_frames = sum(self._frames_list[i] for i in references)
        turns: list[tuple[int, list[int]]] = []
        n_turns = 1 if is_single else rng.randint(2, 6)
        speaker = 0 if rng.random() < 0.9 else rng.randrange(len(voices))
        for turn in range(n_turns):
            utterances = []
            for _ in range(1 if is_single or rng.random() < 0.8 else 2):
                own = self._of_voice[voices[speaker]]
                i = own[rng.randrange(max(1, int(share * len(own))))]
                if (turns or utterances) and n_frames + self._frames_list[i] > MAX_FRAMES:
                    break
                utterances.append(i)
                n_frames += self._frames_list[i]
            if not utterances:
                break
            turns.append((speaker, utterances))
            if len(voices) > 1:
                speaker = (speaker + rng.randrange(1, len(voices))) % len(voices)
            del turn
        is_tagged = not (n_speakers == 1 and references is None and rng.random() < UNTAGGED)
        script = Script(turns, references, continues, rng.random() < SPACED, is_tagged)
        return _renumbered(script)

    def text_of(self, script: Script) -> str:
        """What a request would say."""
        form = 0 if script.is_spaced else 1
        pieces, speaking = [], -1
        for speaker, utterances in script.spoken():
            words = " ".join(self._texts[i][form] for i in utterances)
            tag = f"[S{speaker + 1}]" + " " * script.is_spaced if speaker != speaking and script.is_tagged else ""
            pieces.append(tag + words)
            speaking = speaker
        return "".join(pieces)

    def _frames_of(self, script: Script) -> int:
        return sum(self._frames_list[i] for _, utterances in script.spoken() for i in utterances)

    def _prompt_rows_of(self, script: Script) -> int:
        form, n, speaking = (0 if script.is_spaced else 1), 0, -1
        for speaker, utterances in script.spoken():
            n += sum(int(self._n_tokens[i, form]) for i in utterances) + len(utterances) - 1
            if speaker != speaking and script.is_tagged:
                n += 1 + script.is_spaced
            speaking = speaker
        flush = self._tokens.n_vq - 1
        n += sum(self._frames_list[i] + flush for i in script.references or ())
        tagged = tuple(sorted({k for k, _ in script.spoken()})) if script.is_tagged else ()
        return n + self._overheads.of(tagged, None if script.references is None else len(script.references))


class _Numbers(Sequence[str]):
    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (no slices are asked for)
        return f"dialogue {i}"


def _renumbered(script: Script) -> Script:
    """Without a reference of somebody who says nothing: the server's users have no reason to send one."""
    speaking = sorted({speaker for speaker, _ in script.turns})
    number = {speaker: k for k, speaker in enumerate(speaking)}
    references = None if script.references is None else [script.references[k] for k in speaking]
    turns = [(number[speaker], utterances) for speaker, utterances in script.turns]
    return Script(turns, references, script.continues, script.is_spaced, script.is_tagged)


def _reopened(
    directory: Path,
    n: int,
    seed: int,
    tokenizer: Tokenizer,
    tokens: SpecialTokens,
    part: str,
    measured: np.ndarray,
) -> Dialogues:
    return Dialogues(directory, n, seed, tokenizer, tokens, part=part).take(measured)
