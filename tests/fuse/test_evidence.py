"""Which model of the family a directory holds: found by what it says, else asked for, never guessed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fuse_checkpoints import edit_config
from golden_data import GOLDEN

from sglang_moss.checkpoint import TTS_ARCHITECTURE
from sglang_moss.config import profile_of
from sglang_moss.fuse import FuseError, fuse
from sglang_moss.fuse.configs import OWN_FIELD
from sglang_moss.fuse.evidence import find_evidence
from sglang_moss.fuse.json_file import JsonFile, read_json
from sglang_moss.request.profile import PROFILES, Profile


def write_processor(directory: Path, profile: str) -> None:
    """A processor as upstream's own directories have it, with the template in it."""
    turn = PROFILES[profile].template.user_turn({}, None)
    (directory / "processing_moss_tts.py").write_text(f'class UserMessage:\n    template = """{turn}"""\n')


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """A checkpoint of the family that says nothing of which it is."""
    return Path(shutil.copytree(GOLDEN / "ttsd_nvq32", tmp_path / "model"))


def config_in(folder: Path, name: str, origin: str = "") -> JsonFile:
    directory = folder / name
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"_name_or_path": origin} if origin else {}))
    return read_json(directory / "config.json")


NAMES = {
    "MOSS-TTSD-v1.0": "ttsd",
    "MOSS-TTSD-v1.0-fine-tuned": "ttsd",
    "moss_ttsd": "ttsd",
    "MOSS-TTS": "tts",
    "MOSS-TTS-v1.5": "tts",
    "moss_tts_v1_5": "tts",
    "MOSS-VoiceGenerator": "voice",
    "moss-voice-generator": "voice",
    "MOSS-Voice-Generator": "voice",
    "MOSS-SoundEffect": "sound",
    "moss_sound_effect": "sound",
    "models--OpenMOSS-Team--MOSS-SoundEffect/snapshots/0f3c": "sound",
}
UNTOLD = ("model", "moss_tts_delay", "MossTTSDelay", "MOSS-TTS-Realtime", "MOSS-TTS-Local-Transformer", "MOSS", "tts")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_the_profile(tmp_path: Path, name: str):
    assert find_evidence(config_in(tmp_path, name)).profile is PROFILES[NAMES[name]]
    assert find_evidence(config_in(tmp_path / "other", "model", f"/x/{name}")).profile is PROFILES[NAMES[name]]


@pytest.mark.parametrize("name", UNTOLD)
def test_a_name_that_could_be_any_tells_nothing(tmp_path: Path, name: str):
    with pytest.raises(FuseError, match=r"nothing says which model .* pass --profile ttsd .*`- Scene:`"):
        find_evidence(config_in(tmp_path, name))


def test_a_checkpoint_without_evidence_is_refused_and_leaves_nothing(nameless: Path, tmp_path: Path):
    with pytest.raises(FuseError, match="pass --profile"):
        fuse(nameless, GOLDEN / "codec", tmp_path / "out")
    write_processor(nameless, "tts")  # it says what it is not, and no more
    with pytest.raises(FuseError, match="pass --profile"):
        fuse(nameless, GOLDEN / "codec", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scene_in_the_template_means_dialogues_whatever_the_origin(tmp_path: Path):
    lm = config_in(tmp_path, "model", "/x/MOSS-TTS")
    write_processor(lm.path.parent, "ttsd")
    evidence = find_evidence(lm)
    assert evidence.profile is PROFILES["ttsd"]
    assert evidence.why == "by the template in processing_moss_tts.py"


@pytest.mark.parametrize(
    ("name", "origin", "template", "message"),
    [
        ("MOSS-TTSD", "", "tts", r"it is ttsd by its name, but .*has the fields"),
        ("MOSS-SoundEffect", "", "ttsd", r"it is sound by its name, but .*Scene"),
        (
            "MOSS-VoiceGenerator",
            "MOSS-TTS",
            None,
            r"its name says voice and `_name_or_path` .* says tts: pass --profile",
        ),
    ],
)
def test_evidence_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, origin: str, template: str | None, message: str
):
    lm = config_in(tmp_path, name, origin)
    if template:
        write_processor(lm.path.parent, template)
    with pytest.raises(FuseError, match=message):
        find_evidence(lm)


def test_what_is_asked_for_goes_before_names_but_not_before_the_template(tmp_path: Path):
    lm = config_in(tmp_path, "MOSS-TTS")
    assert find_evidence(lm, "voice").profile is PROFILES["voice"]
    write_processor(lm.path.parent, "tts")
    assert find_evidence(lm, "voice").profile is PROFILES["voice"]
    with pytest.raises(FuseError, match=r"it is ttsd as asked for, but .*Ambient Sound.* its prompts would be wrong"):
        find_evidence(lm, "ttsd")
    with pytest.raises(FuseError, match="--profile other: known are ttsd, tts, voice, sound"):
        find_evidence(lm, "other")


def test_a_processor_that_is_no_python_or_has_no_template_is_no_evidence(tmp_path: Path):
    lm = config_in(tmp_path, "MOSS-TTS")
    (lm.path.parent / "processing_a.py").write_text("def (")
    (lm.path.parent / "processing_b.py").write_bytes(b"x = '\0'")
    (lm.path.parent / "processing_c.py").write_text("x = 'words'")
    assert find_evidence(lm).template is None


def test_what_fine_tuning_leaves_says_its_profile(tmp_path: Path):
    lm = config_in(tmp_path, "model")
    (lm.path.parent / "training.json").write_text(json.dumps({"step": 3, "profile": "sound"}))
    assert find_evidence(lm).profile is PROFILES["sound"]
    (lm.path.parent / "training.json").write_text(json.dumps({"step": 3, "profile": None}))
    with pytest.raises(FuseError, match="pass --profile"):
        find_evidence(lm)


def fused_configs(tmp_path: Path) -> Iterator[tuple[Profile, dict]]:
    for profile in PROFILES.values():
        out = tmp_path / profile.name
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out, profile=profile.name)
        yield profile, json.loads((out / "config.json").read_text())


def test_the_profile_is_written_and_read_back(tmp_path: Path):
    for profile, config in fused_configs(tmp_path):
        assert profile_of(SimpleNamespace(**config)) is profile
        assert (OWN_FIELD in config) == (profile.name != "ttsd"), "MOSS-TTSD's are as the reference's tool makes them"


def test_defaults_of_the_draw_are_carried_and_read_back(tmp_path: Path):
    lm = Path(shutil.copytree(GOLDEN / "ttsd", tmp_path / "ttsd"))
    sampling = {"temperature": 0.7, "repetition_penalty": 1.0}
    edit_config(lm, lambda config: config.update({OWN_FIELD: {"sampling": sampling, "split_seconds": 15}}))
    fuse(lm, GOLDEN / "codec", tmp_path / "fused")
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert config[OWN_FIELD] == {"sampling": sampling, "split_seconds": 15}
    assert profile_of(SimpleNamespace(**config)) == PROFILES["ttsd"].with_defaults(config[OWN_FIELD])

    edit_config(lm, lambda config: config.update({OWN_FIELD: {"sampling": {"heat": 1}}}))
    with pytest.raises(FuseError, match="sglang_moss: sampling has no 'heat'"):
        fuse(lm, GOLDEN / "codec", tmp_path / "other")
    with pytest.raises(ValueError, match="sampling has no 'heat'"):
        profile_of(SimpleNamespace(sglang_moss={"sampling": {"heat": 1}}))


@pytest.mark.parametrize(
    ("config", "profile"),
    [
        ({}, "ttsd"),
        ({"architectures": ["MossTTSDdelayWithCodec"]}, "ttsd"),
        ({"architectures": [TTS_ARCHITECTURE]}, "tts"),
        ({"architectures": [TTS_ARCHITECTURE], OWN_FIELD: {"profile": "sound"}}, "sound"),
        ({OWN_FIELD: {}}, "ttsd"),
    ],
)
def test_directories_of_other_tools_are_what_their_architecture_says(config: dict, profile: str):
    assert profile_of(SimpleNamespace(**config)) is PROFILES[profile]


def test_a_profile_of_a_later_version_is_refused():
    with pytest.raises(ValueError, match="profile is 'song', known are ttsd, tts, voice, sound"):
        profile_of(SimpleNamespace(**{OWN_FIELD: {"profile": "song"}}))


def test_more_codebooks_than_the_codec_has_are_refused(nameless: Path, tmp_path: Path):
    edit_config(nameless, lambda config: config.update(n_vq=33))
    with pytest.raises(FuseError, match=r"n_vq in .* is 33"):
        fuse(nameless, GOLDEN / "codec", tmp_path / "out", profile="tts")
