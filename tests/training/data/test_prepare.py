"""Preparing: codes are the server's and upstream's, bad records are told, and a run killed at any moment goes on.

One input with everything in it is prepared once, without a break; other tests look at what came of it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch
from codec_models import golden_codec
from golden_data import GOLDEN
from waiting import wait_for

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.preparation import prepare_reference
from sglang_moss.fuse.errors import FuseError
from sglang_moss.training.data.dataset import SpeechDataset
from sglang_moss.training.data.errors import DataError
from sglang_moss.training.data.jobs import Jobs
from sglang_moss.training.data.journal import Entry, Journal
from sglang_moss.training.data.messages import FileStamp
from sglang_moss.training.data.prepare import Summary, prepare
from sglang_moss.training.data.progress import Progress
from sglang_moss.training.data.reading import ReadingRules, read_lines
from sglang_moss.training.data.storage import INFO_NAME, WORK_NAME

pytestmark = pytest.mark.wide

CASES = GOLDEN / "cases"
RATE, FRAME, N_VQ = 24_000, 1920, 16
MAX_ROWS = 1300
RAW = [json.loads(line) for line in (GOLDEN / "finetune" / "raw.jsonl").read_text().splitlines()]
PREPARED = {
    r["id"]: r
    for r in map(json.loads, (GOLDEN / "finetune" / "prepared.jsonl").read_text(encoding="utf-8").splitlines())
}
ROWS = {entry["key"]: entry for entry in json.loads((GOLDEN / "finetune" / "rows.json").read_text())}
MODEL: dict[str, Any] = {"model_path": GOLDEN / "ttsd", "codec_path": GOLDEN / "codec"}


@dataclass(frozen=True)
class Made:
    """An input, and what came of it without a break."""

    jsonl: Path
    directory: Path
    summary: Summary
    dataset: SpeechDataset

    def __getitem__(self, name: str) -> Any:
        return self.dataset[list(self.dataset.ids).index(name)]

    def findings(self, file: str) -> dict[str, tuple[int, str]]:
        lines = (self.directory / file).read_text(encoding="utf-8").splitlines()
        return {found["id"]: (found["line"], found["problem"]) for found in map(json.loads, lines)}


def options(**changes: Any) -> dict[str, Any]:
    return {**MODEL, "base_dir": CASES, "max_rows": MAX_ROWS, "n_decoders": 1, "progress": False, **changes}


def noise(path: Path, seconds: float, rate: int = 16_000, level: float = 0.1) -> str:
    draw = np.random.default_rng(round(seconds))
    envelope = np.repeat(draw.uniform(0, 2 * level, round(seconds * 10) + 1), rate // 10)[: round(seconds * rate)]
    soundfile.write(path, envelope * draw.normal(size=len(envelope)), rate)
    return str(path)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Of each process: threads cost these small tensors many times their arithmetic."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    one, two, three = "audio/spk1_24k.wav", "audio/spk2_24k.wav", "audio/spk3_16k.wav"
    copy = str(shutil.copy(CASES / one, folder / "copy of spk1.wav"))
    (folder / "text.wav").write_text("no sound")
    long_text = "[S1] " + "A talk of some length. " * 12
    lines = [
        *RAW,
        {"id": "transcript", "file_path": one, "full_transcript": "<speaker1>Hello.<speaker2>Hello."},
        {"id": "pair", "reference_audio": two, "reference_text": "[S1] One. ", "audio": one, "text": "[S2] Two."},
        {"id": "prompts", "audio": two, "text": "[S2] Hi.", "prompt_audio_speaker2": copy, "base_path": ""},
        {**PREPARED["speakers"], "id": "given"},
        {"id": "long clip", "audio": noise(folder / "70.wav", 70), "text": long_text},
        {"id": "clipped", "audio": noise(folder / "clipped.wav", 2, level=5), "text": "[S1] Hello there, good day."},
        {"id": "no file", "audio": "audio/none.wav", "text": "a"},
        {"id": "no audio", "audio": str(folder / "text.wav"), "text": "a"},
        {"id": "tiny", "audio": "audio/tiny_24k.wav", "text": "a"},
        {"id": "tiny voice", "audio": one, "text": "a", "ref_audio": "audio/tiny_24k.wav"},
        {"id": "silent", "audio": noise(folder / "silent.wav", 2, level=0), "text": "a"},
        {"id": "fast", "audio": one, "text": "word " * 100},
        {"id": "long voice", "audio": one, "text": "a", "ref_audio": noise(folder / "61.wav", 61)},
        {"id": "too long", "audio": noise(folder / "120.wav", 120), "text": long_text},
        {
            "id": "long prompt",
            "audio": str(folder / "70.wav"),
            "text": "[S1] " + "Many words are said. " * 30,
            "ref_audio": three,
        },
        {"id": "no such field", "audio": one, "text": "a", "mood": "sad"},
        {"id": "plain", "audio": one, "text": "a"},
        {"id": "no voice", "audio": one, "text": "[S1] a [S2] b", "ref_audio": one},
    ]
    path = folder / "talks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(jsonl: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("prepared") / "talks"
    summary = prepare(jsonl, output_dir=directory, **options())
    return Made(jsonl, directory, summary, SpeechDataset(directory))


def served(clip: str | Path) -> np.ndarray:
    """[T, n_vq] codes that the server gives a clip as a reference."""
    waveform = prepare_reference((CASES / clip).read_bytes(), RATE, ReferenceLimits(), 0)
    return golden_codec("ctx10").encode([torch.from_numpy(waveform)])[0][:, :N_VQ].numpy()


@pytest.mark.parametrize("line", RAW, ids=lambda line: line["id"])
def test_codes_are_the_servers_and_upstreams(made, line):
    """Upstream resamples by another filter than it serves with: its codes are ours where nothing is resampled."""
    example, upstream = made[line["id"]], PREPARED[line["id"]]
    assert example.codes.tolist() == served(line["audio"]).tolist()
    if "24k" in line["audio"]:
        assert example.codes.tolist() == upstream["audio_codes"]
    assert example.fields == {k: line[k] for k in example.fields}
    clips = line.get("reference", line.get("reference_audio", line.get("ref_audio")))
    if clips is None:
        assert example.references is None
        return
    listed = [clips] if isinstance(clips, str) else clips
    given = upstream.get("reference_audio_codes", [upstream.get("ref_audio_codes")])
    for clip, codes, theirs in zip(listed, example.references, given, strict=True):
        assert (codes is None) == (clip is None)
        if clip is not None:
            assert codes.tolist() == served(clip).tolist()
            if "24k" in clip:
                assert codes.tolist() == theirs


def test_prompt_rows_are_upstreams(made):
    keys = [key for key in ROWS if key.startswith("ttsd.")]
    assert len(keys) == 4
    for key in keys:
        i = list(made.dataset.ids).index(key.removeprefix("ttsd."))
        assert made.dataset.n_prompt_rows[i] == ROWS[key]["first_label_row"] + 1
        assert made.dataset.n_frames[i] == ROWS[key]["frames"]


def test_other_forms_become_what_is_said_of_them(made):
    one, two = served("audio/spk1_24k.wav"), served("audio/spk2_24k.wav")
    assert made["transcript"].fields == {"text": "[S1]Hello.[S2]Hello."}
    assert made["transcript"].codes.tolist() == one.tolist()
    assert made["pair"].fields == {"text": "[S1] One. [S2] Two."}
    assert made["pair"].codes.tolist() == np.concatenate([two, one]).tolist()
    assert made["pair"].references is None
    assert made["prompts"].references[0] is None
    assert made["prompts"].references[1].tolist() == one.tolist()
    assert made["given"].codes.tolist() == PREPARED["speakers"]["audio_codes"]
    assert [r.tolist() for r in made["given"].references] == PREPARED["speakers"]["reference_audio_codes"]


def test_a_long_clip_is_whole(made):
    assert len(made["long clip"].codes) == 70 * RATE // FRAME


def test_bad_records_are_told_by_line_and_id(made):
    rejected = made.findings("rejected.jsonl")
    first = len(RAW) + 7
    expected = {
        "no file": "audio/none.wav: there is no such file",
        "no audio": "text.wav: these 8 bytes cannot be read as audio; send WAV",
        "tiny": "tiny_24k.wav: the clip lasts 0.062 s, less than one frame of 0.08 s",
        "tiny voice": "tiny_24k.wav: the clip lasts 0.062 s, less than one frame",
        "silent": "silent.wav: the clip is silent",
        "fast": "500 characters in 0.72 s is ",
        "long voice": "61.wav: a clip lasts at most 60 s",
        "too long": "120.wav: the clip lasts more than the 102.64 s that --max-rows leaves; cut it at a pause",
        "long prompt": f"of them its prompt, and --max-rows is {MAX_ROWS}",
        "no such field": "unknown field mood: take out what is not to be learnt, or pass --ignore-unknown",
        "plain": "line 1 has the same id",
        "no voice": "the text has [S2] and there are 1 references",
        f"{made.jsonl.stem}-{first + 12}": "no JSON",
    }
    assert list(rejected) == list(expected)
    for i, (name, sentence) in enumerate(expected.items()):
        line, problem = rejected[name]
        assert line == first + i
        assert sentence in problem
    assert "at full scale" in made.findings("warnings.jsonl")["clipped"][1]


def test_the_summary_counts(made):
    summary = made.summary
    assert (summary.n_records, summary.n_prepared, summary.n_rejected) == (29, 16, 13)
    assert summary.hours == made.dataset.info.hours
    assert summary.encoded_hours > summary.hours
    assert summary.x_real_time is not None
    assert summary.encoder_busy is not None
    assert 0 < summary.encoder_busy <= 1
    assert made.dataset.info.n_given_codes == 1


def test_every_voice_is_stored_once(made):
    """spk1, spk2, spk3, and spk3 as upstream resampled it; the copy of spk1 is spk1."""
    assert made.dataset.info.reference_rows == [4]


def test_a_finished_dataset_is_left_as_it_is(made):
    before = {path: path.stat().st_mtime_ns for path in made.directory.iterdir()}
    again = prepare(made.jsonl, output_dir=made.directory, **options(n_decoders=3))
    assert again.was_finished
    assert (again.n_prepared, again.n_rejected) == (16, 13)
    assert {path: path.stat().st_mtime_ns for path in made.directory.iterdir()} == before
    assert not (made.directory / WORK_NAME).exists()


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# The command line, which stops for ever once some clips have codes: however late it is killed, it has not ended.
STOPPING = """
import sys, threading
from pathlib import Path
from sglang_moss.clients.cli import app
from sglang_moss.training.data.journal import Journal
append, journal, mark = Journal._append, *map(Path, sys.argv[1:3])
def append_or_stop(*arguments):
    append(*arguments)
    if journal.stat().st_size > 3000:
        mark.touch()
        threading.Event().wait()
Journal._append = append_or_stop
app(sys.argv[3:])
"""


def test_a_killed_run_goes_on_and_ends_like_any_other(made, tmp_path):
    directory, stopped = tmp_path / "talks", tmp_path / "stopped"
    journal = directory / WORK_NAME / "journal"
    command = [sys.executable, "-c", STOPPING, journal, stopped, "data", "prepare", "--jsonl", made.jsonl]
    command += ["--output-dir", directory, "--model-path", GOLDEN / "ttsd", "--codec-path", GOLDEN / "codec"]
    command += ["--base-dir", CASES, "--max-rows", str(MAX_ROWS), "--decoders", "1"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output)
    wait_for(lambda: stopped.exists() or running.poll() is not None, seconds=600)
    assert running.poll() is None, log.read_text()
    children = psutil.Process(running.pid).children()
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert len(children) == 2
    assert not psutil.wait_procs(children, timeout=60)[1]
    with pytest.raises(DataError, match="is not finished: run the same"):
        SpeechDataset(directory)
    with journal.open("ab") as file:
        file.write(b"clip\0\1")  # half of an entry
    for changes, named in (
        ({"max_rows": MAX_ROWS + 1}, "--max-rows"),
        ({"template": "tts", "normalizer": "generate"}, "--normalize, --template"),
        ({"jsonl": GOLDEN / "finetune" / "raw.jsonl"}, "--jsonl, or what is in it"),
    ):
        with pytest.raises(DataError, match=f"was begun with something else: {named}"):
            prepare(**{"jsonl": made.jsonl, "output_dir": directory, **options(**changes)})
    summary = prepare(made.jsonl, output_dir=directory, **options())
    assert summary.encoded_hours < made.summary.encoded_hours  # what was done is not done again
    assert files_of(directory) == files_of(made.directory)


def given(tmp_path: Path, *changes: dict[str, Any]) -> Path:
    """An input whose codes are given, so that no process is needed."""
    path = tmp_path / "given.jsonl"
    lines = [{"id": f"{i}", "text": f"[S1] Word {i}.", "audio_codes": [[i] * N_VQ] * 9} for i in range(200)]
    lines = [line | change for line, change in zip(lines, [*changes, *[{}] * len(lines)], strict=False)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_run_killed_while_it_publishes_goes_on(tmp_path, monkeypatch):
    path = given(tmp_path)
    whole = tmp_path / "whole"
    prepare(path, output_dir=whole, **options())
    replace = Path.replace
    n_files = len(list(whole.iterdir()))
    for n_renamed in range(1 + n_files):
        directory = tmp_path / f"{n_renamed}"
        left = [1 + n_renamed]  # the plan is the first

        def killed(self: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", killed)
        if n_renamed < n_files:
            with pytest.raises(KeyboardInterrupt):
                prepare(path, output_dir=directory, **options())
            assert not (directory / INFO_NAME).exists()
        monkeypatch.undo()
        prepare(path, output_dir=directory, **options())
        assert files_of(directory) == files_of(whole)


def test_a_clip_that_changed_since_is_refused_and_one_that_was_mended_is_taken(tmp_path):
    jsonl, clips = tmp_path / "in.jsonl", [tmp_path / f"{i}.wav" for i in range(4)]
    lines = [{"audio": str(clip), "text": "a", "ref_audio": str(clips[3])} for clip in clips[:3]]
    jsonl.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for clip in (clips[0], clips[3]):
        noise(clip, 1)
    journal = Journal(tmp_path / "journal", N_VQ)
    done = Entry(None, FileStamp.of(clips[0]), bytes(32), 0.0, np.zeros((9, N_VQ)))
    journal.add_target(0, 0, done)
    journal.add_target(1, 0, Entry("there is no such file", None))
    journal.add_reference(str(clips[3]), replace(done, stamp=FileStamp.of(clips[3])))

    def jobs() -> list[Any]:
        rules = ReadingRules("none", False, N_VQ, 256, frozenset())
        lines = read_lines([jsonl], rules)
        bar = Progress(3, shown=False)
        return [job.key for job in Jobs(lines, journal, lambda clip, _: Path(clip), 1000, FRAME, RATE, bar)]

    assert jobs() == [(2, 0)]
    noise(clips[1], 1)
    assert jobs() == [(1, 0), (2, 0)]
    noise(clips[3], 2)
    with pytest.raises(DataError, match=r"3.wav \(line 1\) has changed since it was encoded"):
        jobs()
    noise(clips[0], 2)
    with pytest.raises(DataError, match=r"0.wav \(line 1\) has changed since it was encoded"):
        jobs()


def test_only_a_new_directory_or_a_dataset_is_written_into(tmp_path):
    path = given(tmp_path)
    with pytest.raises(DataError, match="holds something else than a dataset"):
        prepare(path, output_dir=tmp_path, **options())
    with pytest.raises(DataError, match="is a file"):
        prepare(path, output_dir=path, **options())
    with pytest.raises(DataError, match="holds something else"):
        prepare(path, output_dir=tmp_path, **options(overwrite=True))
    assert path.exists()
    directory = tmp_path / "out"
    prepare(path, output_dir=directory, **options())
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"begun with something else: --max-pace\."):
        prepare(path, output_dir=directory, **options(max_pace=5.0))
    assert prepare(path, output_dir=directory, **options(max_pace=5.0, overwrite=True)).n_prepared == 200
    assert (directory / "notes.txt").read_text() == "mine"


def test_an_input_without_a_fit_record_makes_no_dataset(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"audio": 3}\n')
    with pytest.raises(DataError, match=r"none of 1 records was fit; .*rejected.jsonl says why"):
        prepare(path, output_dir=tmp_path / "out", **options())
    assert "expected a string, got int" in (tmp_path / "out" / "rejected.jsonl").read_text()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"jsonl": []}, "no JSONL file"),
        ({"normalizer": "any"}, "normalizer is 'any', expected one of none, generate, ordinary"),
        ({"template": "xy"}, "template is 'xy', expected one of ttsd, tts"),
        ({"check_template": True}, "nothing to check --template against"),
        ({"base_dir": "nowhere"}, "base_dir is nowhere, which is no directory"),
        ({"codec_path": MODEL["model_path"]}, "pass the codec, which --codec-path takes"),
        ({"devices": ["cpu", "gpu"]}, "--device: expected cpu, cuda or one GPU such as cuda:1, got 'gpu'"),
        ({"max_rows": 18}, "holds not one frame of 16 codebooks"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tmp_path, changes, sentence):
    with pytest.raises((DataError, FuseError), match=sentence):
        prepare(**{"jsonl": given(tmp_path), "output_dir": tmp_path / "out", **options(**changes)})
