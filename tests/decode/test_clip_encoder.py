"""Whose window is encoded next: nobody waits for the whole length of somebody else's clip."""

from collections.abc import Sequence

import numpy as np
import pytest

from sglang_moss.decode.clip_encoder import ClipEncoder

FRAME = 2  # samples
WINDOW = 4  # frames
LONG = 50  # frames


class FakeRunner:
    """A frame's codes are its first sample and how many frames its slot has seen."""

    def __init__(self, n_slots: int = 3) -> None:
        self.n_slots, self.window_frames, self.frame_samples = n_slots, WINDOW, FRAME
        self.seen = [99] * n_slots
        self.steps: list[dict[int, int]] = []  # of each step, what each clip's samples are, and frames
        self.poison: set[int] = set()
        self.fail_next = False

    def encode(self, windows: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray]:
        assert len(set(slots)) == len(slots)
        assert all(0 < len(w) <= WINDOW * FRAME for w in windows)
        self.steps.append({int(w[0]): len(w) // FRAME for w in windows})
        if self.fail_next or self.poison & {int(w[0]) for w in windows}:
            self.fail_next = False
            raise RuntimeError("poisoned")
        codes = []
        for window, slot in zip(windows, slots, strict=True):
            n = len(window) // FRAME
            codes.append(np.stack([window[::FRAME], np.arange(n) + self.seen[slot]], axis=1).astype(np.int16))
            self.seen[slot] += n
        return codes

    def reset(self, slot: int) -> None:
        self.seen[slot] = 0


class Answers(dict[object, list[np.ndarray] | None]):
    """What came of each job."""

    def send(self, job: object, codes: list[np.ndarray] | None) -> None:
        assert job not in self
        self[job] = codes


def clip(name: int, n_frames: int) -> np.ndarray:
    return np.full(n_frames * FRAME + 1, name, np.float32)


def codes_of(name: int, n_frames: int) -> list[list[int]]:
    return [[name, i] for i in range(n_frames)]


def finish(encoder: ClipEncoder) -> Answers:
    answers = Answers()
    for _ in range(1000):
        if not encoder.step(answers.send):
            break
    assert encoder.n_jobs == 0
    return answers


@pytest.mark.parametrize("n_slots", [1, 2, 3])
def test_every_job_gets_the_codes_of_its_clips_in_order(n_slots):
    encoder = ClipEncoder(FakeRunner(n_slots))
    lengths = {"a": [3, 9, 1], "b": [LONG], "c": [0], "d": [], "e": [WINDOW, LONG, 2 * WINDOW + 1]}
    name = iter(range(1, 100))
    expected = {}
    for job, frames in lengths.items():
        names = [next(name) for _ in frames]
        encoder.open(job, [clip(k, n) for k, n in zip(names, frames, strict=True)])
        expected[job] = [codes_of(k, n) for k, n in zip(names, frames, strict=True)]
    answers = finish(encoder)
    assert {job: [c.tolist() for c in codes or ()] for job, codes in answers.items()} == expected


def test_clips_share_steps_window_by_window():
    encoder = ClipEncoder(runner := FakeRunner())
    encoder.open("a", [clip(1, 2 * WINDOW)])
    encoder.open("b", [clip(2, WINDOW + 1)])
    finish(encoder)
    assert runner.steps == [{1: WINDOW, 2: WINDOW}, {1: WINDOW, 2: 1}]


def test_a_short_clip_waits_for_no_long_one():
    encoder, answers = ClipEncoder(runner := FakeRunner()), Answers()
    for i in range(9):
        encoder.open(f"long {i}", [clip(i, LONG)])
    encoder.step(answers.send)
    assert runner.steps[-1].keys() == {0, 1}
    encoder.open("short", [clip(50, 2 * WINDOW)])
    for _ in range(2):
        encoder.step(answers.send)
    assert answers.keys() == {"short"}


def test_a_flood_of_short_clips_holds_back_no_long_one():
    encoder, answers = ClipEncoder(FakeRunner()), Answers()
    encoder.open("long", [clip(1, LONG)])
    for i in range(500):
        encoder.open(i, [clip(2, 1)])
    for _ in range(LONG // WINDOW + 1):
        encoder.step(answers.send)
    assert "long" in answers


def test_dropped_jobs_cost_nothing_more_and_leave_their_slots():
    encoder, answers = ClipEncoder(runner := FakeRunner(2)), Answers()
    encoder.open("seated", [clip(1, LONG), clip(2, 1)])
    encoder.open("waiting", [clip(3, LONG)])
    encoder.step(answers.send)
    encoder.drop("seated")
    encoder.drop("waiting")
    encoder.drop("unknown")
    encoder.open("next", [clip(4, 1), clip(5, 1)])
    encoder.step(answers.send)
    assert runner.steps[-1] == {4: 1, 5: 1}
    assert answers.keys() == {"next"}


def test_a_step_that_fails_is_repeated_for_each_alone_from_the_beginning():
    encoder, answers = ClipEncoder(runner := FakeRunner()), Answers()
    encoder.open("a", [clip(1, LONG), clip(2, 3)])
    encoder.open("b", [clip(3, 5)])
    encoder.step(answers.send)
    runner.fail_next = True
    encoder.step(answers.send)
    answers |= finish(encoder)
    assert all(len(step) == 1 for step in runner.steps[2:])
    assert [[c.tolist() for c in codes or ()] for codes in (answers["a"], answers["b"])] == [
        [codes_of(1, LONG), codes_of(2, 3)],
        [codes_of(3, 5)],
    ]


def test_a_clip_that_fails_by_itself_fails_its_job_only_and_frees_its_slot():
    encoder = ClipEncoder(runner := FakeRunner())
    runner.poison = {2, 3}
    encoder.open("good", [clip(1, LONG)])
    encoder.open("bad", [clip(4, LONG), clip(2, 3), clip(3, 3)])
    answers = finish(encoder)
    assert answers["bad"] is None
    assert [c.tolist() for c in answers["good"] or ()] == [codes_of(1, LONG)]
    encoder.open("later", [clip(5 + i, 2) for i in range(3)])
    assert len(finish(encoder)["later"] or ()) == 3
