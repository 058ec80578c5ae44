"""A run as a whole: what it reads, tells, tries and refuses."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from golden_data import GOLDEN
from speech_examples import InventedSpeech, write_dataset
from train_invented import N_EXAMPLES, SMALL, small_config

from sglang_moss.request.template import TTS
from sglang_moss.training import loop as loop_module
from sglang_moss.training.__main__ import main
from sglang_moss.training.distributed import device_of
from sglang_moss.training.errors import TrainingError
from sglang_moss.training.progress import CURVES_NAME, LOG_NAME, PLOT_NAME, read_log
from sglang_moss.training.run import describe, finetune
from sglang_moss.training.run_plan import plan_run
from sglang_moss.training.subsets import held_out
from sglang_moss.training.workflow import read_workflow_config

pytestmark = pytest.mark.wide

EXAMPLES = InventedSpeech(N_EXAMPLES)
CODEC = {"codec": str(GOLDEN / "codec")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data") / "d", EXAMPLES))


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in read_log(output) if "loss" in line]


def test_a_dataset_on_disk_gives_what_one_in_memory_gives(dataset, tmp_path):
    finetune(small_config(tmp_path / "memory", steps=2), EXAMPLES)
    finetune(small_config(tmp_path / "disk", steps=2, dataset=dataset, **CODEC))
    assert losses(tmp_path / "disk") == losses(tmp_path / "memory")


def test_learning_lowers_the_loss_and_tells_so(tmp_path):
    config = small_config(tmp_path, steps=8, tensorboard=True, optimizer={"rate": 3e-3})
    finetune(config, EXAMPLES)
    lines = read_log(tmp_path)
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert [line["step"] for line in lines] == list(range(1, 9))
    plan = plan_run(config, EXAMPLES)
    assert [line["rows"] for line in lines] == [plan.size_of(plan.planner.step(i)).rows for i in range(8)]
    for line in lines:
        n_vq = plan.shape.tokens.n_vq
        weighted = (line["channel_losses"][0] + 32 / n_vq * sum(line["channel_losses"][1:])) / 33
        assert line["loss"] == pytest.approx(weighted, abs=1e-4)
    assert (tmp_path / PLOT_NAME).stat().st_size > 0
    assert list((tmp_path / CURVES_NAME).iterdir())


def test_validation_ends_a_run_that_learns_nothing_more(tmp_path):
    config = small_config(
        tmp_path,
        steps=40,
        optimizer={"rate": 0.05, "schedule": "constant", "warmup_share": 0.0},
        validation={"share": 0.25, "every": 1, "patience": 2},
        checkpoints={"every": 100},
    )
    outcome = finetune(config, EXAMPLES)
    found = [line["validation_loss"] for line in read_log(tmp_path) if "validation_loss" in line]
    best = int(np.argmin(found)) + 1
    assert len(found) == best + 2 < 40
    assert outcome is not None
    assert (outcome.n_steps, outcome.exported_step) == (best + 2, best)
    assert json.loads((tmp_path / "model" / "training.json").read_text())["step"] == best
    plan = plan_run(config, EXAMPLES)
    assert plan.validation is not None
    assert len(plan.validation) == 6
    assert not set(plan.validation.ids) & set(plan.training.ids)


def test_what_is_held_out_stays_so():
    few, more = ([f"id{i}" for i in range(n)] for n in (100, 130))
    kept = {one for one, out in zip(few, held_out(few, 0.1, 0), strict=True) if out}
    still = {one for one, out in zip(more, held_out(more, 0.1, 0), strict=True) if out}
    assert len(kept) == 10
    assert len(kept & still) > 5
    assert held_out(["a", "b"], 1.0, 0).sum() == 1
    assert held_out(few, 0.0, 0).sum() == 0


def test_samples_are_speech(tmp_path):
    samples = {"every": 2, "max_seconds": 0.5, "examples": 1, "texts": ["[S1] Tea?"]}
    finetune(small_config(tmp_path, steps=2, samples=samples, **CODEC), EXAMPLES)
    files = sorted((tmp_path / "samples" / "step-00000002").iterdir())
    assert [path.name for path in files] == ["0.wav", "1.wav"]
    for path in files:
        waveform, rate = soundfile.read(io.BytesIO(path.read_bytes()))
        assert rate == 24_000
        assert len(waveform) % 1920 == 0
        assert len(waveform) <= 12_000


def test_a_long_example_is_left_out_and_told(tmp_path):
    lengths = EXAMPLES.n_prompt_rows + EXAMPLES.n_frames + EXAMPLES.tokens.n_vq + 2
    config = small_config(tmp_path, packing={"max_rows": int(np.sort(lengths)[-3])})
    plan = plan_run(config, EXAMPLES)
    assert len(plan.too_long) == 2
    told = describe(config, 4, EXAMPLES)
    assert f"{N_EXAMPLES - 2} to learn from, 0 held out, 2 too long" in told
    assert plan.too_long[0] in told
    assert "on 4 GPUs, 1 packs each a step" in told
    assert "GB" in told
    with pytest.raises(TrainingError, match="none of 24 examples is left"):
        plan_run(small_config(tmp_path, packing={"max_rows": 5}), EXAMPLES)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"n_vq": 8}, "has n_vq 8, the model in .* has n_vq 16: prepare it with that model"),
        ({"codebook_size": 1024}, "are below 1024, those of the model in .* below 256"),
        ({"template": "other"}, "is of template 'other', known are ttsd, tts"),
        ({"template": "tts"}, "is prepared with template tts, the run asks for ttsd"),
        ({"tokenizer_sha256": "00"}, "is prepared with another tokenizer"),
        ({"codec_sha256": "ab" * 32}, "a codec with sha256 abababababab, the codec in .*codec has"),
    ],
)
def test_another_dataset_is_refused_by_name(info, message, tmp_path):
    path = write_dataset(tmp_path / "d", InventedSpeech(3), **info)
    config = small_config(tmp_path / "out", dataset=str(path), template="ttsd", **CODEC)
    with pytest.raises(TrainingError, match=message):
        describe(config, 1)


def test_the_familys_template_is_that_of_its_dataset(tmp_path):
    examples = InventedSpeech(4, template=TTS)
    path = write_dataset(tmp_path / "d", examples, template="tts")
    plan = plan_run(small_config(tmp_path / "out", dataset=str(path)))
    assert plan.template is TTS
    assert plan.packs_of(plan.training)[plan.orders(plan.planner.step(0))[0]].n_example_rows > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fuse": True}, "fuse needs the codec: say codec=DIRECTORY"),
        ({"validation": {"patience": 2}}, r"validation\.patience needs held-out examples"),
        ({"samples": {"every": 5}}, r"samples\.every needs the codec"),
        ({"method": "lora", "lora": {"targets": "nothing"}}, r"lora\.targets: 'nothing' takes no linear layer"),
        ({"method": "lora", "lora": {"targets": "("}}, r"lora\.targets: expected all, attention, mlp or a regular"),
        ({"compute": {"device": "cuda"}}, "sees no GPU"),
        ({"compute": {"device": "abacus"}}, r"compute\.device: expected auto, cpu, cuda or one GPU such as cuda:1"),
        ({"loss": {"weights": [1, 2, 3]}}, r"loss\.weights: expected text and audio, or one weight for each of 17"),
        ({"model": str(GOLDEN)}, r"is no checkpoint: config\.json cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(changes, message, tmp_path):
    if "device" in changes.get("compute", {}) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match=message):
        finetune(small_config(tmp_path, **changes), EXAMPLES)
    assert not (tmp_path / LOG_NAME).exists()


def test_what_the_run_reads_is_not_replaced(tmp_path):
    base = tmp_path / "tuned" / "model"
    shutil.copytree(GOLDEN / "ttsd", base)
    with pytest.raises(TrainingError, match=r"tuned/model and would replace it; take another output"):
        finetune(small_config(tmp_path / "tuned", model=str(base)), EXAMPLES)


def test_options_that_would_do_nothing_are_refused(tmp_path, capsys):
    words = ["model=a", "dataset=b", f"output={tmp_path}"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--dry-run", "--gpus", "0"])
    assert "--gpus: expected a positive number, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--gpus", "8"])
    assert "--gpus is for --dry-run" in capsys.readouterr().err
    assert main([*words, "--normalizer", "none"]) == 1
    assert "of the records of --from-jsonl, which is missing" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(TrainingError, match="out is a file; name a directory to make"):
        finetune(small_config(tmp_path / "out"), EXAMPLES)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "there is no such file of settings"), ("a: [", "cannot be read as YAML: .*line 1, column 5")],
)
@pytest.mark.parametrize("words", [[], ["--from-jsonl", "records.jsonl"]])
def test_a_file_of_settings_that_cannot_be_read_is_told_in_one_line(content, sentence, words, tmp_path, capsys):
    path = tmp_path / "train.yaml"
    if content is not None:
        path.write_text(content)
    assert main(["--config", str(path), *words]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(rf"error: {re.escape(str(path))}.*{sentence}.*\n", told), told


def test_running_out_of_memory_names_what_to_turn(tmp_path, monkeypatch):
    def full(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop_module.Loop, "one_step", full)
    compute = {"checkpointing": "selective", "saved_share": 0}
    config = small_config(tmp_path, packing={"rows": 8192}, compute=compute)
    expected = r"compute\.checkpointing=full; set packing\.rows=4096 and packing\.per_step=6; set loss\.chunk_rows=1024"
    with pytest.raises(TrainingError, match=expected):
        finetune(config, EXAMPLES)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    config = small_config(tmp_path, steps=6, optimizer={"rate": 1e30, "schedule": "constant", "warmup_share": 0.0})
    with pytest.raises(TrainingError, match=r"step 2: the loss is .*, the gradient (nan|inf); lower optimizer\.rate"):
        finetune(config, EXAMPLES)
    assert not (tmp_path / "model").exists()


def test_the_command_line(dataset, tmp_path, capsys):
    settings = {**SMALL, "dataset": dataset, "steps": 1, **CODEC}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    words = ["--config", str(tmp_path / "train.yaml"), f"output={tmp_path / 'out'}"]
    assert main([*words, "--dry-run", "--gpus", "2"]) == 0
    assert "steps         1, " in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*words, "--method", "lora", "--fuse"]) == 0
    out = capsys.readouterr().out
    assert f"serve it: sglang serve --model-path {tmp_path / 'out' / 'fused'} --delay-pattern" in out
    assert f"adapters: {tmp_path / 'out' / 'adapters'}" in out
    assert main([*words, "--method", "lora", "--rows", "1"]) == 1
    assert "of a run with packing.rows 512, now it is 1" in capsys.readouterr().err
    assert main([*words, "colour=blue"]) == 1
    assert "unknown key 'colour'" in capsys.readouterr().err


def test_a_workflow_of_v05_is_mapped(tmp_path, capsys):
    training, lora = tmp_path / "training.yaml", tmp_path / "lora.yaml"
    training.write_text("learning_rate: 1e-4\nnum_train_epochs: 50\nwarmup_ratio: 0.1\nbf16: true\nmax_steps: -1\n")
    lora.write_text("r: 16\nlora_alpha: 32\nuse_rslora: true\ntarget_modules: [q_proj, down_proj]\n")
    old = {
        "path_to_jsonl": "talks.jsonl",
        "data_output_directory": "data",
        "data_name": "talks",
        "use_normalize": True,
        "path_to_model": "MODEL",
        "finetuned_model_output": "out",
        "training_config_file": str(training),
        "use_lora": True,
        "lora_config_file": str(lora),
    }
    path = tmp_path / "finetune_config.yaml"
    path.write_text(yaml.safe_dump(old))
    config, prepared = read_workflow_config(str(path), ["codec=CODEC", "optimizer.clip=0.5"], None)
    assert (config.model, config.dataset, config.output, config.codec) == ("MODEL", "data/talks", "out", "CODEC")
    assert (config.method, config.rate, config.epochs, config.steps) == ("lora", 1e-4, 50, None)
    assert (config.optimizer.warmup_share, config.optimizer.clip, config.fuse) == (0.1, 0.5, True)
    assert config.lora.alpha / config.lora.rank == pytest.approx(32 / 16**0.5)
    assert config.lora.targets == r"language_model\.layers\.\d+\.(self_attn\.q_proj|mlp\.down_proj)"
    assert prepared["normalizer"] == "generate"
    assert (prepared["model_path"], prepared["codec_path"]) == ("MODEL", "CODEC")
    assert "bf16 of the workflow of v0.5 has no meaning here" in capsys.readouterr().err


def test_records_are_prepared_beside_the_output(tmp_path):
    words = ["model=MODEL", "codec=CODEC", f"output={tmp_path}"]
    config, prepared = read_workflow_config(None, words, "talks.jsonl")
    assert config.dataset == str(tmp_path / "dataset")
    assert config.fuse
    assert (prepared["jsonl"], str(prepared["output_dir"])) == ("talks.jsonl", config.dataset)
    with pytest.raises(TrainingError, match="'output' is missing"):
        read_workflow_config(None, ["model=MODEL"], "talks.jsonl")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([f"model={GOLDEN / 'ttsd'}"], "fuse needs the codec: say codec=DIRECTORY"),
        ([f"model={GOLDEN / 'ttsd'}", "fuse=false"], "has no codec of its own: name it with codec="),
        ([f"model={GOLDEN / 'ttsd'}", f"codec={GOLDEN / 'ttsd'}"], "pass the codec, which codec= takes"),
        ([f"model={GOLDEN / 'codec'}", f"codec={GOLDEN / 'ttsd'}"], "swap model= and codec="),
        ([f"model={GOLDEN / 'ttsd'}", f"codec={GOLDEN / 'codec'}", "--device", "gpu"], "compute.device: expected auto"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_records_are_prepared(words, sentence, tmp_path, capsys):
    records = str(GOLDEN / "finetune" / "raw.jsonl")
    assert main(["--from-jsonl", records, f"output={tmp_path / 'out'}", *words]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of("auto") == device_of("cuda") == torch.device("cuda", 1)
    with pytest.raises(TrainingError, match="cuda:1 is one GPU, and processes need one each"):
        device_of("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match="process 3 of this machine finds no GPU of its own among 2"):
        device_of("cuda")


@pytest.mark.slow
def test_from_records_to_a_fused_checkpoint_by_one_command(tmp_path, capsys):
    words = ["--from-jsonl", str(GOLDEN / "finetune" / "raw.jsonl"), "--base-dir", str(GOLDEN / "cases")]
    words += [f"{key}={yaml.safe_dump(SMALL[key])}" for key in ("model", "steps", "tensorboard")]
    words += [f"codec={GOLDEN / 'codec'}", f"output={tmp_path / 'out'}", "packing.rows=512", "data.workers=0"]
    assert main(words) == 0
    assert f"serve it: sglang serve --model-path {tmp_path / 'out' / 'fused'}" in capsys.readouterr().out
    assert len(read_log(tmp_path / "out")) == SMALL["steps"]
