"""Which letter is spoken in each frame: `python -m small_voice.alignment ENCODED`.

A hidden Markov model of letters, silence before and after them, whose emissions are the first codebooks' codes; it
begins with letters spread evenly over an utterance and learns by Viterbi alignment, of letters alone first, then of
letters with the next one in view. What it finds lies in ENCODED/letters.u8, [frames of all utterances, 2]: the letter
of the frame, and the one that comes next; 0 is silence, or behind the end.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .encode import CODES
from .letter_book import N_SIGNS
from .letters import ALPHABET, letters_of

LETTERS = "letters.u8"
_BOOKS = 3  # codebooks that are looked at
_N = N_SIGNS
_STEPS = torch.tensor([0.36, 0.40, 0.17, 0.07]).log()  # letters on from frame to frame
_SMOOTH = 2.0
_BATCH = 4096
_ROUNDS = (False, False, False, True, True)  # whether the next letter is in view


@dataclass(frozen=True)
class Batch:
    """Utterances of about one length."""

    numbers: np.ndarray  # [B]
    codes: Tensor  # [B, T, books] int64
    states: Tensor  # [B, S] int64: silence, letters, silence, then silence as filler
    n_frames: Tensor  # [B]
    n_states: Tensor  # [B], both silences counted

    @property
    def inside(self) -> Tensor:
        """[B, T] whether a frame is the utterance's own."""
        return torch.arange(self.codes.shape[1], device=self.codes.device)[None] < self.n_frames[:, None]


def batches(codes: np.ndarray, n_frames: np.ndarray, texts: list[str], device: torch.device) -> list[Batch]:
    """All utterances, short ones first."""
    starts = np.concatenate([[0], np.cumsum(n_frames, dtype=np.int64)])
    letters = [np.array([0, *letters_of(text), 0], np.int64) for text in texts]
    order = np.argsort(n_frames, kind="stable")
    found = []
    for at in range(0, len(order), _BATCH):
        chosen = order[at : at + _BATCH]
        rows = np.zeros((len(chosen), int(n_frames[chosen].max()), _BOOKS), np.int64)
        states = np.zeros((len(chosen), max(len(letters[i]) for i in chosen)), np.int64)
        for k, i in enumerate(chosen):
            rows[k, : n_frames[i]] = codes[starts[i] : starts[i + 1], :_BOOKS]
            states[k, : len(letters[i])] = letters[i]
        lengths = torch.from_numpy(n_frames[chosen].astype(np.int64))
        sizes = torch.tensor([len(letters[i]) for i in chosen])
        found.append(Batch(chosen, *(torch.as_tensor(x).to(device) for x in (rows, states, lengths, sizes))))
    return found


def classes(batch: Batch, *, sees_next: bool) -> Tensor:
    """[B, S] what each state's emissions are counted under."""
    if not sees_next:
        return batch.states
    after = torch.cat([batch.states[:, 1:], batch.states.new_zeros(len(batch.states), 1)], 1)
    return batch.states * _N + after


def spread(batch: Batch) -> Tensor:
    """[B, T] states, evenly, two frames of silence before and three behind where there is room."""
    t = torch.arange(batch.codes.shape[1], device=batch.codes.device)[None]
    inner = (batch.n_frames - 5).clamp_min(1)[:, None]
    share = ((t - 1.5) / inner).clamp(-0.01, 1.01)
    states = (1 + share * (batch.n_states - 2)[:, None]).floor().long()
    return torch.minimum(states.clamp_min(0), (batch.n_states - 1)[:, None])


def viterbi(batch: Batch, emissions: Tensor) -> Tensor:
    """[B, T] states of the likeliest path from the first to the last; emissions [B, T, S]."""
    n_batch, n_frames, n_states = emissions.shape
    steps = _STEPS.to(emissions.device)
    best = emissions.new_full((n_batch, n_states), -1e30)
    best[:, :2] = emissions[:, 0, :2]
    back = torch.zeros(n_batch, n_frames, n_states, dtype=torch.uint8, device=emissions.device)
    for t in range(1, n_frames):
        padded = torch.nn.functional.pad(best, (3, 0), value=-1e30)
        came = torch.stack([padded[:, 3 - k : 3 - k + n_states] + steps[k] for k in range(4)], -1)
        value, back[:, t] = came.max(-1)
        inside = (t < batch.n_frames)[:, None]
        best = torch.where(inside, value + emissions[:, t], best)
    state = batch.n_states - 1
    path = torch.zeros(n_batch, n_frames, dtype=torch.int64, device=emissions.device)
    for t in range(n_frames - 1, -1, -1):
        path[:, t] = state
        back_here = back[:, t].gather(1, state[:, None])[:, 0].long()
        state = torch.where(t < batch.n_frames, state - back_here, state).clamp_min(0)
    return path


def count(found: list[Batch], paths: list[Tensor], *, sees_next: bool, size: int) -> Tensor:
    """[books, classes, size] log-probabilities of codes, from where the paths are."""
    n_classes = _N * _N if sees_next else _N
    device = found[0].codes.device
    counts = torch.zeros(_BOOKS, n_classes * size, device=device)
    for batch, path in zip(found, paths, strict=True):
        of = classes(batch, sees_next=sees_next).gather(1, path)
        for book in range(_BOOKS):
            index = (of * size + batch.codes[:, :, book])[batch.inside]
            counts[book] += torch.bincount(index, minlength=n_classes * size)
    counts = counts.view(_BOOKS, n_classes, size)
    whole = counts.sum(1, keepdim=True) / counts.sum((1, 2), keepdim=True)  # how often a code comes at all
    if sees_next:  # what the letter alone says stands in for rare pairs
        alone = counts.view(_BOOKS, _N, _N, size).sum(2)
        alone = (alone + 50 * whole) / (alone.sum(2, keepdim=True) + 50)
        prior = alone[:, :, None].expand(-1, -1, _N, -1).reshape(_BOOKS, -1, size)
        weight = 200.0
    else:
        prior, weight = whole, _SMOOTH * size / 10
    return ((counts + weight * prior) / (counts.sum(2, keepdim=True) + weight)).clamp_min(1e-8).log()


def emissions_of(batch: Batch, tables: Tensor, *, sees_next: bool) -> Tensor:
    """[B, T, S] float32."""
    of = classes(batch, sees_next=sees_next)
    total: Tensor | float = 0.0
    for book, weight in zip(range(_BOOKS), (1.0, 0.5, 0.3), strict=True):  # they are not independent
        total = total + weight * tables[book][of[:, None, :], batch.codes[:, :, book, None]]
    assert isinstance(total, Tensor)
    outside = torch.arange(of.shape[1], device=of.device)[None] >= batch.n_states[:, None]
    return total.masked_fill_(outside[:, None, :], -1e9)


def align(codes: np.ndarray, n_frames: np.ndarray, texts: list[str], device: torch.device, size: int) -> np.ndarray:
    """The letters of every frame.

    Args:
        codes: [frames of all utterances, n_codebooks] uint16.
        n_frames: [N] of each.
        texts: [N].
        device: where it is computed.
        size: of a codebook.
    Returns:
        [frames of all utterances, 2] uint8: see above.
    """
    found = batches(codes, n_frames, texts, device)
    paths = [spread(batch) for batch in found]
    for sees_next in _ROUNDS:
        tables = count(found, paths, sees_next=sees_next, size=size)
        paths, likelihood = [], 0.0
        for batch in found:
            emissions = emissions_of(batch, tables, sees_next=sees_next)
            paths.append(viterbi(batch, emissions))
            likelihood += float(emissions.gather(2, paths[-1][:, :, None])[:, :, 0][batch.inside].sum())
        print(f"alignment: {likelihood / float(n_frames.sum()):.4f} nats a frame", flush=True)
    starts = np.concatenate([[0], np.cumsum(n_frames, dtype=np.int64)])
    letters = np.zeros((len(codes), 2), np.uint8)
    for batch, path in zip(found, paths, strict=True):
        here = batch.states.gather(1, path)
        later = path + 1
        coming = batch.states.gather(1, later.clamp_max(batch.states.shape[1] - 1))
        coming = torch.where(later < batch.n_states[:, None], coming, 0)
        rows = torch.stack([here, coming], -1).to(torch.uint8).cpu().numpy()
        for k, i in enumerate(batch.numbers):
            letters[starts[i] : starts[i + 1]] = rows[k, : n_frames[i]]
    return letters


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("encoded", type=Path)
    parser.add_argument("--utterances", type=int, help="the first ones alone, to see; nothing is written")
    parser.add_argument("--codebook-size", type=int, default=512)
    args = parser.parse_args()
    started = time.time()
    n_frames = np.load(args.encoded / "index.npz")["n_frames"]
    codes = np.memmap(args.encoded / CODES, np.uint16, "r").reshape(int(n_frames.sum()), -1)
    texts = [pair[0] for pair in json.loads((args.encoded / "texts.json").read_text())][: args.utterances]
    n_frames = n_frames[: args.utterances]
    codes = codes[: int(n_frames.sum())]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    letters = align(codes, n_frames, texts, device, args.codebook_size)
    if args.utterances is None:
        letters.tofile(args.encoded / LETTERS)
    print(f"aligned {len(texts)} utterances in {time.time() - started:.0f} s", flush=True)
    signs = ["_", *ALPHABET]
    for i in range(min(len(texts), 5)):
        at = int(n_frames[:i].sum())
        print(texts[i], "|", "".join(signs[k] for k in letters[at : at + n_frames[i], 0]), flush=True)


if __name__ == "__main__":
    main()
