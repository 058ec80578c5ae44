"""`moss-ttsd check`: what a model directory is, against what is assumed of it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_checkpoints import drop_from_index, edit_config, edit_json
from golden_data import GOLDEN
from typer.testing import CliRunner

from sglang_moss.clients.cli import app
from sglang_moss.fuse.check import Finding, check_model
from sglang_moss.request.profile import PROFILES


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory as MOSS-TTS is published, but for the weights' sizes."""
    directory = Path(shutil.copytree(GOLDEN / "ttsd_nvq32", tmp_path / "MOSS-TTS-v1.5"))
    write_template(directory, PROFILES["tts"].template.user_turn({}, None))
    return directory


def write_template(directory: Path, turn: str) -> None:
    (directory / "processing_moss_tts.py").write_text(f'TEMPLATE = """{turn}"""\nraise SystemExit("was run")\n')


def found(model: Path, profile: str | None = None) -> dict[str, Finding]:
    return {finding.about: finding for finding in check_model(model, profile)}


def test_a_checkpoint_that_is_as_assumed_can_be_served(model: Path):
    findings = found(model)
    assert findings["verdict"] == Finding(
        "ok", "verdict", f"can be served as tts: moss-ttsd fuse --model-path {model} ..."
    )
    assert not [str(finding) for finding in findings.values() if finding.verdict == "wrong"]
    assert findings["n_vq"].text == "32"
    assert findings["weights"].text == "32 embeddings of codes and 33 heads"
    assert findings["audio_vocab_size"] == Finding("note", "audio_vocab_size", "64, published is 1024")
    assert findings["ids"].verdict == findings["chat template"].verdict == findings["template"].verdict == "ok"


def rename(model: Path) -> None:
    shutil.move(model, model.with_name("model"))


WRONG: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "another template": (
        lambda m: write_template(m, PROFILES["ttsd"].template.user_turn({}, None)),
        "profile",
        "it is tts by its name, but",
    ),
    "a field more": (
        lambda m: write_template(m, "<user_inst>\n- Reference(s):\n{r}\n- Mood:\n{m}\n- Text:\n{t}\n</user_inst>"),
        "profile",
        "has the fields Reference(s), Mood, Text",
    ),
    "another architecture": (
        lambda m: edit_config(m, lambda c: c.update(architectures=["MossTTSLocal"])),
        "architecture",
        "needed is MossTTSDelayModel",
    ),
    "an id of no token": (
        lambda m: edit_config(m, lambda c: c.update(audio_start_token_id=5)),
        "ids",
        "audio_start_token_id is 5, which is no special token",
    ),
    "two ids alike": (
        lambda m: edit_config(m, lambda c: c.update(audio_end_token_id=c["audio_start_token_id"])),
        "ids",
        "",
    ),
    "heads of fewer codebooks": (
        lambda m: edit_config(m, lambda c: c.update(n_vq=16)),
        "weights",
        "32 embeddings of codes and 33 heads, needed are 16 and one more",
    ),
    "a head left out": (lambda m: drop_from_index(m, "lm_heads.3.weight"), "weights", "32 heads, needed are 32"),
    "a pad code among the codes": (
        lambda m: edit_config(m, lambda c: c.update(audio_pad_code=63)),
        "pad code",
        "needed is the one after the codes, 64",
    ),
    "no dtype": (lambda m: edit_config(m, lambda c: c.pop("dtype")), "dtype", "has no field dtype"),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "tokenizer", "tokenizer.json is missing"),
    "another chat": (
        lambda m: (m / "chat_template.jinja").write_text("{{ messages[0].content }}"),
        "chat template",
        'writes "words", needed is',
    ),
    "no context": (
        lambda m: edit_json(m / "config.json", lambda c: c["language_config"].pop("max_position_embeddings")),
        "max_position_embeddings",
        "has no field",
    ),
}


@pytest.mark.parametrize("damage", WRONG)
def test_what_is_otherwise_is_named_and_the_verdict_is_no(model: Path, damage: str):
    do, about, message = WRONG[damage]
    do(model)
    findings = list(check_model(model))
    assert [f for f in findings if f.verdict == "wrong" and f.about == about and message in f.text] or (
        damage == "two ids alike" and any("two fields" in f.text for f in findings)
    )
    assert findings[-1].verdict == "wrong"
    assert findings[-1].text.startswith("cannot be served")


def test_a_token_of_another_name_is_told_and_no_more(model: Path):
    def swap(config: dict) -> None:
        config["audio_user_slot_token_id"] = 612

    edit_config(model, swap)
    findings = found(model)
    assert findings["ids"] == Finding(
        "note", "ids", "audio_user_slot_token_id is <|image_pad|>, expected <|audio_user_slot|>"
    )
    assert findings["verdict"].verdict == "ok"


def test_the_command_prints_a_line_a_finding_and_its_status_is_the_verdict(model: Path):
    result = CliRunner().invoke(app, ["check", str(model)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].startswith("ok     profile                 tts (MOSS-TTS), by its name")
    (model / "processing_moss_tts.py").unlink()
    rename(model)
    result = CliRunner().invoke(app, ["check", str(model.with_name("model"))])
    assert result.exit_code == 1
    assert "pass --profile" in result.stdout
    named = CliRunner().invoke(app, ["check", str(model.with_name("model")), "--profile", "voice"])
    assert named.exit_code == 0
    assert "note   template" in named.stdout
    missing = CliRunner().invoke(app, ["check", str(model / "nowhere")])
    assert missing.exit_code == 1
    assert "is missing" in missing.stderr
