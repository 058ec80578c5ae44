"""The quality gates: what they ask for, when they hold, and how they end; with a server and ears of their own."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from fake_speech_server import FakeServer, fake_speech_server, speech_events, tone_wav
from golden_data import GOLDEN
from judged_speech import Repeating
from sound_files import tone_file
from typer.testing import CliRunner

from sglang_moss.benchmarks import quality
from sglang_moss.benchmarks.judging import texts as quality_texts
from sglang_moss.benchmarks.judging.codec import through_codec
from sglang_moss.benchmarks.judging.gates import cost_lines, heard_lines, reading, row_of, short_form, stream_lines
from sglang_moss.benchmarks.judging.speech import Stream, steps_apart, stream_each
from sglang_moss.benchmarks.judging.texts import RATE, held_out_sentences, source_speech, write_dialogues
from sglang_moss.benchmarks.judging.variants import VARIANTS, on_cores
from sglang_moss.benchmarks.runs.record import read_lines
from sglang_moss.clients.small_voice import NoSmallVoice, clips_in
from sglang_moss.evaluation.aligners import load_aligner
from sglang_moss.evaluation.dataset import read_dataset
from sglang_moss.evaluation.judge import BackEnds
from sglang_moss.evaluation.results import Errors, Figure, ItemScore, Result, TurnScore
from sglang_moss.fuse import fuse


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.wav").write_bytes(tone_file(1.0))
        (folder / f"{name}.txt").write_text(f"This is {name}.\n")
    return folder


def result_of(n_wrong: Sequence[int], n_failed: int = 0) -> Result:
    """An item of ten words and two turns for each number."""
    turns = [TurnScore(speaker=1, text="a", start_s=0, end_s=1, similarities={1: 0.9, 2: 0.5})]
    items = [
        ItemScore(
            id=f"d{i}",
            language="en",
            audio=None,
            words=Errors(n=10, substituted=n, deleted=0, inserted=0),
            characters=Errors(n=10, substituted=n, deleted=0, inserted=0),
            turns=turns,
        )
        for i, n in enumerate(n_wrong)
    ]
    wer = Figure(value=sum(n_wrong) / (10 * len(n_wrong)), low=0.0, high=1.0, n=10 * len(n_wrong), n_items=len(n_wrong))
    return Result(
        made_at="now", dataset="d", server=None, settings={}, versions={}, figures={"wer": wer}, flags={},
        n_failed=n_failed, items=items,
    )  # fmt: skip


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 16, 50])
def test_every_sentence_is_said_once_by_two_speakers_in_turn(voices: Path, tmp_path: Path, n: int):
    sentences = [f"This is sentence {'x' * i}." for i in range(n)]
    n_dialogues = write_dialogues(sentences, clips_in(voices), tmp_path / "d.jsonl")
    items = read_dataset(tmp_path / "d.jsonl")
    assert len(items) == n_dialogues
    assert Counter(turn.words for item in items for turn in item.turns) == Counter(sentences)
    for item in items:
        assert 2 <= len(item.turns) <= 4
        assert [turn.speaker for turn in item.turns] == [1 + i % 2 for i in range(len(item.turns))]
        assert item.clips[1] != item.clips[2]
    if n == 50:
        assert len({tuple(item.clips.values()) for item in items}) == 6, "all ordered pairs of three voices"


def test_two_voices_are_needed(voices: Path, tmp_path: Path):
    with pytest.raises(NoSmallVoice, match="two voices, found 1"):
        write_dialogues(["One."], clips_in(voices)[:1], tmp_path / "d.jsonl")


def test_sentences_are_those_of_the_recipe_or_of_a_file(tmp_path: Path):
    assert len(held_out_sentences()) == 50
    (tmp_path / "s.txt").write_text("One.\n\n Two.\n")
    assert held_out_sentences(tmp_path / "s.txt") == ["One.", "Two."]
    for path in (tmp_path / "none.txt", Path("/dev/null").parent):
        with pytest.raises(NoSmallVoice):
            held_out_sentences(path)


def test_without_a_synthesiser_the_committed_clips_are_the_source(monkeypatch: pytest.MonkeyPatch):
    def nothing(_: object) -> None:
        raise FileNotFoundError("no Flite")

    monkeypatch.setattr(quality_texts, "_synthesised", nothing)
    source, speech = source_speech(["One."])
    assert source == "committed clips"
    assert len(speech) == 9
    known = held_out_sentences()
    for text, samples in speech:
        assert text in known
        assert samples.dtype == np.float32
        assert 2 * RATE < len(samples) < 4 * RATE
        assert 0.05 < np.sqrt(np.mean(samples**2)) < 0.2


def test_a_codec_gives_clips_of_the_same_length(tmp_path: Path):
    fuse(GOLDEN / "ttsd", GOLDEN / "codec", tmp_path / "fused")
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, n * 1920).astype(np.float32) for n in (3, 5)]
    made = through_codec(tmp_path / "fused", clips)
    assert [len(clip) for clip in made] == [len(clip) for clip in clips]
    assert all(np.abs(clip).max() <= 1 for clip in made)


@pytest.mark.parametrize(
    ("check", "value", "passes"),
    [
        ("wer", 0.15, True),
        ("wer", 0.151, False),
        ("wer", float("nan"), False),
        ("acc", 0.9, True),
        ("acc", 0.89, False),
        ("codec", -0.01, True),
        ("codec", 0.051, False),
        ("streams_apart", 1, False),
        ("rtf", float("inf"), False),
        ("sim", 0.1, None),
    ],
)
def test_a_reading_passes_where_it_clears_its_bar(check: str, value: float, passes: bool | None):
    assert reading(check, "cpu", value).get("passes") is passes
    assert "passes" not in reading(check, "cpu", value, has_bar=False)


def test_what_the_judge_cannot_say_clears_no_bar():
    lines = {line["check"]: line for line in heard_lines("cpu", result_of([1, 1], n_failed=1))}
    assert lines["wer"]["passes"]
    assert lines["acc"]["passes"] is False, "no figure"
    assert lines["unspoken"]["passes"] is False
    assert "FAILS" in row_of(lines["acc"])


def test_streams_are_timed_together_and_their_first_sounds_one_by_one():
    streams = [Stream(1, b"", 0.4, 1.0, 4.0), Stream(2, b"", 1.6, 2.0, 2.0)]
    lines = {line["check"]: line for line in stream_lines("cpu", streams, [0, 1], has_bar=True)}
    assert lines["rtf"]["value"] == 0.5
    assert lines["first_audio_s"] == reading("first_audio_s", "cpu", 1.6, median_s=1.0, n=2)
    assert lines["first_audio_s"]["passes"] is False
    assert lines["streams_apart"]["passes"]
    [apart, *_] = stream_lines("fp8", streams, [2, float("inf")], has_bar=False)
    assert (apart["value"], "passes" in apart) == (2, False)
    assert steps_apart(streams, Path("nowhere")) == [float("inf")] * 2


@pytest.mark.parametrize(("low", "passes"), [(0.14, True), (0.151, False)])
def test_few_sentences_fail_where_the_whole_interval_is_beyond_the_bar(low: float, passes: bool):
    line = short_form(reading("wer", "cpu", 0.2, low=low, high=0.3))
    assert (line["passes"], line["bar"]) == (passes, "about <= 0.15")
    assert short_form(reading("wer", "cpu", 0.31, low=0.1, high=0.5))["passes"] is False, "twice the bar"
    assert short_form(reading("acc", "cpu", 0.5, low=0.3, high=1 - low))["passes"] is False
    assert short_form(reading("acc", "cpu", 0.85, low=0.6, high=0.95))["passes"] is True
    assert "passes" not in short_form(reading("rtf", "cpu", 3.0))
    assert short_form(reading("codec", "float32", 0.06))["passes"] is False


def test_a_variant_costs_what_the_paired_comparison_says():
    lines = list(cost_lines(("cpu", result_of([0, 1, 0, 1])), ("fp8", result_of([1, 2, 1, 2]))))
    wer = next(line for line in lines if line["metric"] == "wer")
    assert wer["value"] == pytest.approx(0.1)
    assert (wer["variant"], wer["against"]) == ("fp8", "cpu")
    assert row_of(wer).startswith("cost of wer      fp8")


def test_variants_name_arguments_and_a_server_on_the_cpu_has_its_cores():
    assert VARIANTS["cpu"].on_cpu
    assert VARIANTS["cpu"].env["CUDA_VISIBLE_DEVICES"] == ""
    assert not any(variant.on_cpu for name, variant in VARIANTS.items() if name != "cpu")
    before = os.sched_getaffinity(0)
    with on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    with on_cores(None):
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("chunks", "is_apart"), [([5], False), ([2, 3], True)])
def test_a_stream_is_held_to_the_whole_answer_sample_by_sample(
    voices: Path, tmp_path: Path, chunks: list[int], is_apart: bool
):
    write_dialogues(["One.", "Two.", "Three.", "Four."], clips_in(voices), tmp_path / "d.jsonl")
    items = read_dataset(tmp_path / "d.jsonl")[:2]
    for item in items:
        (tmp_path / f"{item.number:06}.wav").write_bytes(tone_wav(5 * 1920))
    with fake_speech_server() as server:
        server.events = speech_events(chunks)  # each begins the tone anew
        streams = stream_each(server.url, items)
    assert [steps > 1 for steps in steps_apart(streams, tmp_path)] == [is_apart] * len(items)
    assert [stream.seconds for stream in streams] == pytest.approx([0.4] * len(items))
    assert all(0 < stream.first_audio_s <= stream.wall_s for stream in streams)
    assert all("This is" in body["text"] for body in server.bodies), "continued, as a batch asks for it"
    assert all("temperature" not in body["sampling_params"] for body in server.bodies), "the server's own defaults"


class TestWholeProgram:
    """Over a server that streams a tone: nothing of it can be understood."""

    @pytest.fixture
    def fused(self, tmp_path: Path) -> Path:
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", tmp_path / "fused")
        return tmp_path / "fused"

    @pytest.fixture(autouse=True)
    def ears(self, monkeypatch: pytest.MonkeyPatch) -> None:
        back_ends = BackEnds(Repeating("We hear this.", "en"), load_aligner("proportional", "cpu"), None, {})
        monkeypatch.setattr(quality, "Choice", lambda: SimpleNamespace(load=lambda: back_ends))

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
        with fake_speech_server() as found:
            started = []

            class Server:
                def __init__(self, model_path: Path, **how: object) -> None:
                    started.append((model_path, how))
                    self.url = found.url

                def __enter__(self) -> None: ...

                def stop(self) -> None:
                    started.append("stopped")

            monkeypatch.setattr(quality, "LocalServer", Server)
            yield found
            assert started[-1] == "stopped"

    def test_it_says_what_failed_and_ends_with_status_1(
        self, fused: Path, voices: Path, tmp_path: Path, server: FakeServer
    ):
        assert server.url
        app = typer.Typer()
        app.command()(quality.main)
        (tmp_path / "s.txt").write_text("One sentence.\nAnother one.\n")
        arguments = [str(fused), "--voices", str(voices), "--short", "--out", str(tmp_path / "q.jsonl")]
        arguments += ["--sentences", str(tmp_path / "s.txt")]
        done = CliRunner().invoke(app, [*arguments, "--folder", str(tmp_path / "kept")])
        assert done.exit_code == 1, done.output
        assert "not cleared: " in done.output
        lines = {line["check"]: line for line in read_lines(tmp_path / "q.jsonl")}
        assert list(lines) == [
            "codec", "wer", "acc", "sim", "unspoken", "streams_apart", "rtf", "first_audio_s",
        ]  # fmt: skip
        assert lines["wer"]["passes"] is False
        assert lines["unspoken"]["value"] == 0
        assert (tmp_path / "kept" / "cpu.json").is_file()
