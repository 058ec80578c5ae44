"""What a run leaves: the layout of its base, weights rounded once, and a model that speaks as the trainer's."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fuse_checkpoints import tensor_bytes
from golden_data import GOLDEN
from speech_examples import InventedSpeech
from train_invented import N_EXAMPLES, small_config
from warm_engine import generated

from sglang_moss.fuse import fuse
from sglang_moss.fuse.errors import FuseError
from sglang_moss.request.prompt import SpeechPrompt
from sglang_moss.training.building import build
from sglang_moss.training.checkpoints import Checkpoints
from sglang_moss.training.distributed import World
from sglang_moss.training.errors import TrainingError
from sglang_moss.training.export import merge
from sglang_moss.training.generation import Drawing, generate
from sglang_moss.training.loop import Loop
from sglang_moss.training.rows import prompt_rows
from sglang_moss.training.run import finetune
from sglang_moss.training.run_plan import plan_run
from sglang_moss.training.weights import load_weights

pytestmark = pytest.mark.wide

ALONE = World(0, 1, torch.device("cpu"))
EXAMPLES = InventedSpeech(N_EXAMPLES)
METHODS = {"full": {}, "lora": {"method": "lora", "lora": {"audio_heads": True}}}
# Enough for the tiny model to open its mouth, and to shut it.
SPEAKS = {"steps": 20, "optimizer": {"rate": 5e-3}, "loss": {"weights": [8, 1]}}
MAX_FRAMES = 40
WEIGHTS = "*.safetensors"


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory):
    """Settings and output of a short run from the golden language model, for each method."""
    config = small_config(tmp_path_factory.mktemp(request.param), **SPEAKS, **METHODS[request.param])
    outcome = finetune(config, EXAMPLES)
    assert outcome is not None
    assert outcome.model == Path(config.output) / "model"
    return config


def restored(config) -> torch.nn.Module:
    """The trainer's own model, from its last checkpoint."""
    model, trained = build(config, ALONE, Path(config.model))
    checkpoints = Checkpoints(Path(config.output) / "checkpoints", 2, ALONE)
    checkpoints.load(checkpoints.latest(), trained.tensors)
    trained.publish()
    return model


def test_the_layout_is_that_of_the_base(run):
    base, model = GOLDEN / "ttsd", Path(run.output) / "model"
    names = {path.name for path in base.iterdir() if path.is_file()}
    assert {path.name for path in model.iterdir()} == names | {"training.json"}
    for name in names:
        if not name.endswith(".safetensors"):
            assert (model / name).read_bytes() == (base / name).read_bytes(), name
    before, after = tensor_bytes(base), tensor_bytes(model)
    assert {name: (t[0], t[1]) for name, t in before.items()} == {name: (t[0], t[1]) for name, t in after.items()}
    changed = {name for name in before if before[name] != after[name]}
    if run.method == "full":
        assert changed == set(before)
    else:  # the text head, norms and text embeddings are frozen
        assert {"language_model.norm.weight", "lm_heads.0.weight"} <= set(before) - changed
        assert {"emb_ext.3.weight", "language_model.layers.1.mlp.up_proj.weight"} <= changed
    assert json.loads((model / "training.json").read_text())["step"] == 20


def test_the_exported_model_is_the_trainers(run, tmp_path):
    plan = plan_run(run, EXAMPLES)
    pack = plan.packs_of(plan.training)[plan.orders(plan.planner.step(0))[0]]
    with torch.no_grad():
        own = restored(run)(pack)
        exported, _ = build(small_config(tmp_path), ALONE, None)
        load_weights(exported, Path(run.output) / "model")
        torch.testing.assert_close(exported(pack), own, rtol=1e-5, atol=1e-3)
        load_weights(exported, GOLDEN / "ttsd")
        assert abs(float(exported(pack)[0]) - float(own[0])) > 0.1


def test_fusing_takes_it(run, fused_path, tmp_path):
    fuse(Path(run.output) / "model", GOLDEN / "codec", tmp_path / "fused")
    exported, fused = tensor_bytes(Path(run.output) / "model"), tensor_bytes(tmp_path / "fused")
    assert fused.keys() == tensor_bytes(fused_path).keys()
    assert all(fused[name.replace("language_model.", "model.")] == tensor for name, tensor in exported.items())


def test_a_fused_base_gives_a_fused_model(run, fused_path, tmp_path):
    config = small_config(tmp_path / "run", model=str(fused_path), **SPEAKS, **METHODS[run.method])
    finetune(config, EXAMPLES)
    before, after = tensor_bytes(fused_path), tensor_bytes(tmp_path / "run" / "model")
    assert before.keys() == after.keys()
    codec = {name for name in before if name.startswith("codec_model.")}
    assert codec
    assert all(before[name] == after[name] for name in codec)
    published = tensor_bytes(Path(run.output) / "model")
    assert after["model.layers.0.mlp.up_proj.weight"] == published["language_model.layers.0.mlp.up_proj.weight"]


def test_kept_adapters_merge_into_the_same_model(run, tmp_path):
    adapters = Path(run.output) / "adapters"
    if run.method == "full":
        assert not adapters.exists()
        with pytest.raises(FuseError, match=r"--adapters .* does not exist"):
            merge(GOLDEN / "ttsd", adapters, tmp_path / "merged")
        return
    merge(GOLDEN / "ttsd", adapters, tmp_path / "merged")
    assert tensor_bytes(tmp_path / "merged") == tensor_bytes(Path(run.output) / "model")
    with pytest.raises(FuseError, match="exists: pass --overwrite"):
        merge(GOLDEN / "ttsd", adapters, tmp_path / "merged")
    for read in (adapters, Path(run.output)):  # what holds the adapters would take them along
        with pytest.raises(FuseError, match="must not lie in each other: choose another path"):
            merge(GOLDEN / "ttsd", adapters, read, overwrite=True)
    assert (adapters / "adapter_config.json").exists()
    cut = shutil.copytree(adapters, tmp_path / "cut")
    (cut / "adapter_model.safetensors").write_bytes((cut / "adapter_model.safetensors").read_bytes()[:50])
    with pytest.raises(TrainingError, match="cut holds no adapters that can be read"):
        merge(GOLDEN / "ttsd", cut, tmp_path / "other")
    with pytest.raises(TrainingError, match="has no tensor"):
        merge(GOLDEN / "codec", adapters, tmp_path / "other")
    with pytest.raises(TrainingError, match="it is not what was trained"):
        merge(GOLDEN / "ttsd_nvq32", adapters, tmp_path / "other")


def test_what_is_exported_on_the_way_says_what_the_last_one_says(tmp_path, monkeypatch):
    base = shutil.copytree(GOLDEN / "ttsd", tmp_path / "base")
    finetune(small_config(tmp_path / "whole", model=str(base), steps=1), EXAMPLES)
    whole = json.loads((tmp_path / "whole" / "model" / "training.json").read_text())
    monkeypatch.setattr(Loop, "take_best", lambda _loop: sys.exit("killed"))
    config = small_config(tmp_path / "cut", model=str(base), steps=1, checkpoints={"every": 1, "export": True})
    with pytest.raises(SystemExit, match="killed"):
        finetune(config, EXAMPLES)
    on_the_way = json.loads((tmp_path / "cut" / "model" / "training.json").read_text())
    assert {**on_the_way, "config": None} == {**whole, "config": None}
    assert tensor_bytes(tmp_path / "cut" / "model") == tensor_bytes(tmp_path / "whole" / "model")


def test_weights_are_rounded_once(tmp_path):
    """A 16-bit base: W + (alpha / rank) B A in float32, then 16 bit, and not a sum of rounded parts."""
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    base.mkdir()
    for path in (GOLDEN / "ttsd").iterdir():
        if path.suffix == ".safetensors":
            save_file({n: t.bfloat16() for n, t in load_file(path).items()}, base / path.name, {"format": "pt"})
        elif path.is_file():
            (base / path.name).write_bytes(path.read_bytes())
    finetune(small_config(tmp_path / "run", model=str(base), method="lora"), EXAMPLES)
    config = small_config(tmp_path / "run", model=str(base), method="lora")
    _model, trained = build(config, ALONE, base)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 2, ALONE)
    checkpoints.load(checkpoints.latest(), trained.tensors)
    name = "language_model.layers.2.mlp.down_proj"
    a, b = (trained.tensors[f"{name}.lora_{half}.default.weight"] for half in "AB")
    [weight] = [w for path in base.glob(WEIGHTS) if (w := load_file(path).get(f"{name}.weight")) is not None]
    exported = [load_file(path).get(f"{name}.weight") for path in (tmp_path / "run" / "model").glob(WEIGHTS)]
    [found] = [w for w in exported if w is not None]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, (weight.float() + 64 / 4 * (b @ a)).bfloat16())
    assert not torch.equal(found, weight)


@pytest.mark.server
@pytest.mark.slow
def test_the_served_model_speaks_as_the_trainers_own(run, tmp_path):
    fuse(Path(run.output) / "model", GOLDEN / "codec", tmp_path / "fused")
    plan, model = plan_run(run, EXAMPLES), restored(run)
    tokens = plan.shape.tokens
    prompts = [prompt_rows(plan.training[i], plan.tokenizer, tokens, plan.template) for i in range(4)]
    # Rows of the server: the start, the frames, and those that flush them.
    greedy = {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": MAX_FRAMES + tokens.n_vq + 2}
    requests = [SpeechPrompt(rows, rows[:0, 1:]) for rows in prompts]
    answers = generated(tmp_path / "fused", requests, [greedy] * len(requests))
    drawing = Drawing(temperature=0.0, repetition_penalty=1.0)
    spoken = [generate(model, rows, drawing, MAX_FRAMES, ALONE) for rows in prompts]
    assert sum(map(len, spoken)) > 20
    for answer, codes in zip(answers, spoken, strict=True):
        np.testing.assert_array_equal(answer.codes[:MAX_FRAMES], codes)
