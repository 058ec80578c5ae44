"""The golden check itself: our trainer passes it, and what is wrong does not."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_data import GOLDEN

from sglang_moss.training import model as model_module
from sglang_moss.training.attention import Segments
from sglang_moss.training.golden import model_check
from sglang_moss.training.golden.__main__ import cases, check_rows, main
from sglang_moss.training.golden.model_check import check_model, golden_model
from sglang_moss.training.golden.records import GoldenRecords

pytestmark = pytest.mark.wide

FINETUNE = GOLDEN / "finetune"
CHECKPOINT = GOLDEN / "ttsd"


def test_everything_equals_upstreams():
    found = list(cases(FINETUNE, CHECKPOINT))
    assert not [str(case) for case in found if case.differences]
    assert len(found) > 80


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FINETUNE, tmp_path / "finetune"))


def test_attention_across_samples_is_found(monkeypatch, changed):
    """The pack as one segment whose positions run on: what the leaking fork trains."""

    def leaking(backend, cu_seqlens, max_rows, n_rows):  # noqa: ARG001
        return Segments.of(backend, cu_seqlens[[0, -1]], n_rows, n_rows)

    make_pack = model_check.make_pack

    def one_segment(*arguments):
        pack = make_pack(*arguments)
        return dataclasses.replace(pack, positions=torch.arange(len(pack.rows), dtype=torch.int32))

    monkeypatch.setattr(model_module, "Segments", type("Leaking", (), {"of": staticmethod(leaking)}))
    monkeypatch.setattr(model_check, "make_pack", one_segment)
    stored = json.loads((changed / "loss.json").read_text())
    stored["results"] = {"group.pair": stored["results"]["group.pair"]}
    (changed / "loss.json").write_text(json.dumps(stored))
    records, model = GoldenRecords(changed, CHECKPOINT), golden_model(CHECKPOINT, "sdpa")
    differing = {case.name: str(case) for case in check_model(changed, records, model) if case.differences}
    assert "group.pair packed_block_mask" in differing
    assert "is that of attention across samples" in differing["group.pair does not leak"]
    found = model_check.run(
        model, records.many(stored["results"]["group.pair"]["samples"]), stored["weights"]["default"]
    )
    assert found.loss == pytest.approx(stored["results"]["group.pair"]["packed_leaking"]["loss"], rel=1e-6)


def test_a_row_that_differs_is_named(changed):
    with np.load(changed / "rows.npz") as arrays:
        rows = dict(arrays)
    rows["ttsd.plain.rows"][3, 0] += 1
    np.savez(changed / "rows.npz", **rows)
    differing = [str(case) for case in check_rows(changed, GoldenRecords(changed, CHECKPOINT)) if case.differences]
    assert len(differing) == 1
    assert "rows ttsd.plain: rows: 1 entries differ" in differing[0]


def test_the_command_fails_where_a_gradient_differs(changed, capsys):
    stored = json.loads((changed / "loss.json").read_text())
    result = stored["results"]["tts.plain"]
    result["default"]["grad_norms"]["emb_ext.3.weight"] *= 1.0001
    stored["results"] = {"tts.plain": result}
    (changed / "loss.json").write_text(json.dumps(stored))
    assert main([str(changed), "--serving-golden", str(GOLDEN)]) == 1
    assert "DIFFERS tts.plain default: gradient of emb_ext.3.weight" in capsys.readouterr().out
