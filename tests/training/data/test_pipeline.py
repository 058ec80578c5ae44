"""Who decodes and encodes what, with processes that only pretend: every clip once, a bounded number on its way."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sglang_moss.training.data import pipeline as module
from sglang_moss.training.data.errors import DataError
from sglang_moss.training.data.journal import Journal
from sglang_moss.training.data.pipeline import Job, Pipeline
from sglang_moss.training.data.workers import Worker, WorkerDied

pytestmark = pytest.mark.wide

HELPERS = Path(__file__).parents[2] / "helpers"
N_VQ = 2


def worker(main: str, folder: Path) -> Worker:
    """A process of `fake_workers`."""
    launcher = folder / f"{main}_launcher.py"
    launcher.write_text(f"from fake_workers import {main} as main\n")
    return Worker(launcher.stem, None, folder / f"{main}.log", {"PYTHONPATH": f"{HELPERS}:{folder}"})


def run(
    folder: Path, clips: list[str], n_encoders: int = 1, n_decoders: int = 2, encoder: str = "encoder"
) -> tuple[Journal, Pipeline, list[tuple[str, str | None]]]:
    """Targets, one a line; a name that begins with `ref ` is a reference."""
    (folder / "spool").mkdir()
    journal = Journal(folder / "journal", N_VQ)
    done: list[tuple[str, str | None]] = []
    pipeline = Pipeline(
        journal,
        lambda: worker("decoder", folder),
        n_decoders,
        [worker(encoder, folder) for _ in range(n_encoders)],
        folder / "spool",
        frame_rate=1.0,
        on_done=lambda job, problem: done.append((str(job.path), problem)),
    )
    jobs = []
    for i, clip in enumerate(clips):
        path = Path(clip.removeprefix("ref "))
        jobs.append(Job(clip if clip.startswith("ref ") else (i, 0), path, 10**9, f"line {i}"))
    pipeline.run(iter(jobs))
    return journal, pipeline, done


def code(content: str) -> int:
    return hashlib.sha256(content.encode()).digest()[0]


def test_every_clip_is_done_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BATCH_S", 60.0)
    lengths = np.random.default_rng(0).integers(1, 50, 150).tolist()
    clips = [f"{n}_{'bad' if i % 11 == 5 else i}.wav" for i, n in enumerate(lengths)]
    journal, pipeline, done = run(tmp_path, clips, n_encoders=2)
    assert Counter(path for path, _ in done) == Counter(clips)
    for i, (n_frames, clip) in enumerate(zip(lengths, clips, strict=True)):
        entry = journal.target(i, 0)
        assert entry is not None
        if "bad" in clip:
            assert entry.problem == f"{clip}: bad"
        else:
            assert entry.codes is not None
            assert entry.codes[:, 0].tolist() == [code(f"{i}")] * n_frames
    assert pipeline.counts.encoded_frames == sum(n for n, c in zip(lengths, clips, strict=True) if "bad" not in c)
    assert not list((tmp_path / "spool").iterdir())


def test_a_voice_under_many_paths_is_encoded_once(tmp_path):
    clips = [f"ref {3 if i % 2 else 4}_{'odd' if i % 2 else 'even'}.wav" for i in range(2)]
    clips += [f"ref copies/{i}/{3 if i % 2 else 4}_{'odd' if i % 2 else 'even'}.wav" for i in range(40)]
    journal, pipeline, done = run(tmp_path, clips)
    assert len(done) == 42
    assert pipeline.counts.encoded_frames == 7
    for clip in clips:
        entry = journal.reference(clip)
        assert entry is not None
        voice = journal.voice(entry.sha256)
        assert voice is not None
        assert voice.codes is not None
        assert voice.codes[0, 0] == code("odd" if "odd" in clip else "even")


def test_a_clip_that_ends_its_process_is_told_and_the_others_go_on(tmp_path):
    journal, _, done = run(tmp_path, ["3_dies.wav", "4_a.wav", "5_dies.wav", "6_b.wav"], n_decoders=1)
    assert len(done) == 4
    for line, codes in ((0, None), (1, 4), (2, None), (3, 6)):
        entry = journal.target(line, 0)
        assert entry is not None
        if codes is None:
            assert entry.problem is not None
            assert "the process that decoded it was ended by SIGKILL" in entry.problem
        else:
            assert entry.codes is not None
            assert len(entry.codes) == codes


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        ("3_full.wav", "the disk is full; run the same command again to go on"),
        ("3_poison.wav", "the encoder is lost; run the same command again to go on"),
    ],
)
def test_what_is_no_clips_fault_ends_the_run_and_keeps_what_was_done(tmp_path, clip, sentence):
    with pytest.raises(DataError, match=sentence):
        run(tmp_path, [*[f"2_{i}.wav" for i in range(5)], clip], n_decoders=1)
    assert Journal(tmp_path / "journal", N_VQ).n_found <= 5


def test_an_encoder_that_dies_ends_the_run(tmp_path):
    with pytest.raises(DataError, match=r"encoding process ended with status 1: no such device; run the same"):
        run(tmp_path, ["2_a.wav"], encoder="dying_encoder")


def test_decoders_run_ahead_by_a_bounded_number(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_AHEAD_CLIPS", 8)
    monkeypatch.setattr(module, "_BATCH_S", 10.0)
    most = 0
    take = Pipeline._take_decoded

    def counting(self: Pipeline, i: int) -> None:
        nonlocal most
        take(self, i)
        most = max(most, len(self._pool))

    monkeypatch.setattr(Pipeline, "_take_decoded", counting)
    _, _, done = run(tmp_path, [f"{1 + i % 5}_{i}.wav" for i in range(100)])
    assert len(done) == 100
    assert 1 < most <= 8


def test_batches_hold_clips_of_like_length_around_the_oldest():
    pipeline = object.__new__(Pipeline)
    pipeline._batch_frames = 100
    order = np.random.default_rng(1).permutation(200)
    waiting = [module._Waiting(10 + i, int(order[i]), None, None, None) for i in range(200)]  # pyright: ignore
    pipeline._pool = list(waiting)
    pipeline._pool_frames = sum(one.n_frames for one in waiting)
    seen = []
    while pipeline._pool:
        oldest = min(one.order for one in pipeline._pool)
        batch = pipeline._take_batch()
        lengths = [one.n_frames for one in batch]
        assert oldest in [one.order for one in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert sum(lengths[:-1]) <= 100 + max(lengths)
        seen += batch
    assert sorted(one.order for one in seen) == list(range(200))
    assert pipeline._pool_frames == 0


def test_a_worker_that_is_gone_says_how(tmp_path):
    dead = worker("dying_encoder", tmp_path)
    dead._process.wait()
    dead.send("lost")
    with pytest.raises(WorkerDied, match="ended with status 1: no such device"):
        dead.receive()
    dead.close()
    dead.join()
