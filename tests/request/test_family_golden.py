"""The golden check of the family's prompts: ours pass it, and what is wrong does not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN

from sglang_moss.request.golden import cases, main

FAMILY = GOLDEN / "family"


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FAMILY, tmp_path / "family"))


def differing(directory: Path) -> dict[str, str]:
    return {case.name: str(case) for case in cases(directory, GOLDEN) if case.differences}


def test_every_prompt_equals_upstreams(capsys: pytest.CaptureFixture[str]):
    stored = json.loads((FAMILY / "hf.json").read_text())["cases"].keys()
    texts = json.loads((FAMILY / "served_base.json").read_text())["prompts"]
    assert main([str(FAMILY), "--serving-golden", str(GOLDEN)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{1 + len(stored) + len(texts)} cases, 0 differ"
    assert {line.split()[2] for line in lines if line.startswith("ok      hf ")} == stored
    assert not [line for line in lines if "refuses" in line], "a server takes all of them"


def test_other_words_other_rows_and_a_field_left_out_are_found(changed: Path, capsys: pytest.CaptureFixture[str]):
    stored = json.loads((changed / "hf.json").read_text())
    stored["cases"]["voice.basic"]["content"] = stored["cases"]["voice.basic"]["content"].replace("loud", "low")
    del stored["cases"]["tts.language"]["fields"]["language"]
    (changed / "hf.json").write_text(json.dumps(stored))
    with np.load(changed / "hf.npz") as arrays:
        rows = dict(arrays)
    rows["sound.basic.input_ids"][7, 3] += 1
    np.savez(changed / "hf.npz", **rows)
    served = json.loads((changed / "served_base.json").read_text())
    served["prompts"]["0|${token:25}hello"] = served["prompts"]["0|${token:25}hello"].replace("25", "None")
    (changed / "served_base.json").write_text(json.dumps(served))
    found = differing(changed)
    assert found.keys() == {"hf voice.basic", "hf tts.language", "hf sound.basic", "served '${token:25}hello'"}
    assert "rows: 1 entries differ, first (7, 3)" in found["hf sound.basic"].replace("np.int64(7), np.int64(3)", "7, 3")
    assert main([str(changed), "--serving-golden", str(GOLDEN)]) == 1
    assert "4 differ" in capsys.readouterr().out


def test_a_checkpoint_of_other_codebooks_is_found(changed: Path):
    found = {case.name: str(case) for case in cases(changed, GOLDEN, "ttsd") if case.differences}
    assert "n_vq" in found["sizes of the checkpoint"]
