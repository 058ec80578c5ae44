"""Datasets on disk: what is written is read, by random access, in several directories, and nothing else is taken."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_moss.training.data.dataset import SpeechDataset
from sglang_moss.training.data.errors import DataError
from sglang_moss.training.data.shards import DatasetWriter, StoredExample
from sglang_moss.training.data.storage import INFO_NAME, NO_REFERENCE, WORK_NAME, DatasetInfo, examples_name

pytestmark = pytest.mark.wide

N_VQ = 3
INFO = DatasetInfo(
    codec_sha256="c0",
    n_vq=N_VQ,
    sampling_rate=24_000,
    frame_samples=1920,
    codebook_size=1024,
    tokenizer_sha256="d0",
    template="ttsd",
    normalizer="none",
    n_examples=0,
    n_frames=0,
    n_rejected=0,
    n_given_codes=0,
    shard_rows=[],
    reference_rows=[],
)


def codes_of(n_frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (n_frames, N_VQ))


def example(i: int, n_frames: int = 5, prefix: str = "e", **changes) -> StoredExample:
    given = {
        "id": f"{prefix}{i}",
        "fields": {"text": f"[S1] Hello {i}."},
        "codes": codes_of(n_frames, i),
        "references": None,
        "n_prompt_rows": 20 + i,
        "n_speakers": 1,
        "audio_sha256": bytes(32),
    }
    return StoredExample(**{**given, **changes})


def write(path: Path, examples: list[StoredExample], voices: int = 0, shard_bytes: int = 100, **info) -> Path:
    path.mkdir(parents=True)
    writer = DatasetWriter(path, shard_bytes)
    for voice in range(voices):
        assert writer.add_reference(codes_of(2 + voice, 1000 + voice)) == voice
    for one in examples:
        writer.add(one)
    shard_rows, reference_rows = writer.close()
    counts = {"n_examples": writer.n_examples, "n_frames": writer.n_frames}
    made = replace(INFO, shard_rows=shard_rows, reference_rows=reference_rows, **{**counts, **info})
    (path / INFO_NAME).write_bytes(made.to_json())
    return path


UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=30, suppress_health_check=UNCHECKED)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=200),
    shard_bytes=st.integers(1, 3000),
    n_voices=st.integers(1, 5),
)
def test_what_is_written_is_read_in_any_order(tmp_path_factory, lengths, shard_bytes, n_voices):
    draw = np.random.default_rng(len(lengths))
    references = [
        None if i % 4 == 0 else tuple(draw.integers(NO_REFERENCE, n_voices, i % 3).tolist())
        for i in range(len(lengths))
    ]
    fields = [{"text": "a"} if i % 2 else {"ambient_sound": "雨", "tokens": i, "text": ""} for i in range(len(lengths))]
    written = [
        example(i, n, fields=fields[i], references=references[i], n_speakers=1 + i % 5) for i, n in enumerate(lengths)
    ]
    path = write(tmp_path_factory.mktemp("data") / "set", written, n_voices, shard_bytes)
    dataset = SpeechDataset(path)
    assert len(dataset) == len(lengths)
    assert list(dataset.ids) == [one.id for one in written]
    assert dataset.n_frames.tolist() == lengths
    assert dataset.n_frames.dtype == dataset.n_prompt_rows.dtype == np.int32
    assert dataset.n_prompt_rows.tolist() == [one.n_prompt_rows for one in written]
    assert dataset.info.n_frames == sum(lengths)
    for i in draw.permutation(len(lengths)):
        read, expected = dataset[int(i)], written[i]
        assert (read.id, dict(read.fields)) == (expected.id, dict(expected.fields))
        assert read.codes.tolist() == expected.codes.tolist()
        if expected.references is None:
            assert read.references is None
        else:
            assert [None if codes is None else codes.tolist() for codes in read.references] == [
                None if k == NO_REFERENCE else codes_of(2 + k, 1000 + k).tolist() for k in expected.references
            ]


def test_arrays_stay_what_they_were_while_others_are_read(tmp_path):
    """Pages are given back to the system meanwhile."""
    dataset = SpeechDataset(write(tmp_path / "a", [example(i, 1 + i % 9) for i in range(500)], shard_bytes=5000))
    kept = [dataset[i].codes for i in range(500)]
    for i, codes in enumerate(kept):
        assert codes.tolist() == codes_of(1 + i % 9, i).tolist()


def test_the_same_examples_are_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / name, [example(i) for i in range(100)], voices=2) for name in "ab")
    assert [p.name for p in sorted(first.iterdir())] == [p.name for p in sorted(second.iterdir())]
    assert all((second / p.name).read_bytes() == p.read_bytes() for p in first.iterdir())


def test_several_directories_are_one_dataset(tmp_path):
    paths = [write(tmp_path / p, [example(i, prefix=p) for i in range(n)]) for p, n in (("a", 3), ("b", 1), ("c", 70))]
    dataset = SpeechDataset(paths)
    assert list(dataset.ids) == [f"{p}{i}" for p, n in (("a", 3), ("b", 1), ("c", 70)) for i in range(n)]
    assert [dataset[i].id for i in range(len(dataset))] == dataset.ids[:]
    assert dataset[-1].id == dataset.ids[-1] == "c69"
    assert dataset.info.n_examples == 74
    assert dataset.info.hours == 74 * 5 * 0.08 / 3600
    for wrong in (74, -75):
        with pytest.raises(IndexError):
            dataset[wrong]


def test_a_copy_in_another_process_reads_the_same(tmp_path):
    dataset = SpeechDataset(write(tmp_path / "a", [example(i) for i in range(9)]))
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[7].codes.tolist() == dataset[7].codes.tolist()


def test_directories_that_do_not_belong_together_are_refused_by_name(tmp_path):
    first = write(tmp_path / "a", [example(0)])
    for name, value in (("codec_sha256", "c1"), ("n_vq", 1), ("template", "tts"), ("sampling_rate", 16_000)):
        other = write(tmp_path / name, [example(1)], **{name: value})
        with pytest.raises(DataError, match=f"cannot be one dataset: {name} is"):
            SpeechDataset([first, other])
    with pytest.raises(DataError, match=r"1 ids come twice.*'e0'"):
        SpeechDataset([first, write(tmp_path / "again", [example(0)])])


def test_what_is_no_finished_dataset_is_refused(tmp_path):
    path = write(tmp_path / "a", [example(0)])
    with pytest.raises(DataError, match="is no dataset"):
        SpeechDataset(tmp_path)
    info = json.loads((path / INFO_NAME).read_text())
    for changes, sentence in (
        ({"version": 2}, "of version 2"),
        ({"format": "other"}, "something else"),
        ({"color": 1}, "other fields .*color"),
        ({"n_examples": 5}, "1 rows, expected 5"),
    ):
        (path / INFO_NAME).write_text(json.dumps(info | changes))
        with pytest.raises(DataError, match=sentence):
            SpeechDataset(path)
    (path / INFO_NAME).write_text('{"format":')
    with pytest.raises(DataError, match=r"dataset.json is damaged: prepare the dataset again"):
        SpeechDataset(path)
    (path / INFO_NAME).write_text(json.dumps(info))
    (path / examples_name(0)).unlink()
    with pytest.raises(DataError, match=r"examples-00000.arrow is missing"):
        SpeechDataset(path)
    (path / INFO_NAME).unlink()
    (path / WORK_NAME).mkdir()
    with pytest.raises(DataError, match="is not finished: run the same"):
        SpeechDataset(path)
