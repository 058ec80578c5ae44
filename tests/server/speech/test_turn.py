"""`/v1/audio/speech` of each model of the family: what its fields come to, and which of them it refuses."""

import asyncio
import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_manager import STOP, FakeManager, event, frames_of

from sglang_moss.request.profile import PROFILES
from sglang_moss.request.prompt import choose_mode
from sglang_moss.request.script import check_script, read_script
from sglang_moss.request.settings import RequestOptions
from sglang_moss.server.errors import BadField
from sglang_moss.server.speech.fields import SpeechFields
from sglang_moss.server.speech.plan import Clip, SpeechPlan, read_plan
from sglang_moss.server.speech.sessions import Engine, Session
from sglang_moss.server.speech.voice_names import VoiceNames
from sglang_moss.server.speech.voice_store import VoiceStore

CLIP = base64.b64encode(b"clip").decode()
SAILOR = {"input": "Ahoy!", "instructions": "an old sailor, hoarse"}
LONG = " ".join(f"This is sentence number {i:04} of the script." for i in range(40))


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    store = VoiceStore(tmp_path / "voices", 5, VoiceNames(default="default"))
    store.add("alice", b"alice's", "I am Alice.", 1.0)
    store.add("mute", b"mute's", None, 1.0)
    return store


def plan_of(name: str, fields: dict[str, Any], store: VoiceStore, tmp_path: Path) -> SpeechPlan:
    manager = FakeManager(lambda _request: [event(frames_of(0, 0), STOP)], tmp_path, profile=name)
    return asyncio.run(read_plan(SpeechFields.model_validate(fields), store, Engine(manager, SimpleNamespace)))


def taken(name: str, session: Session) -> dict[str, Any]:
    """Fields of the user turn, once `/generate`'s own checks have passed them."""
    profile = PROFILES[name]
    options = RequestOptions.parse(session.sampling_params, profile)
    choose_mode(options.mode, len(session.audio_data or ()), profile)
    script = read_script(session.text, profile, options.fields)
    check_script(script, frozenset(), profile=profile)
    return {key: value for key, value in script.fields.items() if value is not None}


MEANT: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a text": ("tts", {"input": "Hello there."}, {"text": "Hello there."}),
    "a text with controls": (
        "tts",
        {"input": "nin2 hao3 /həˈloʊ/[pause 3.2s][sighs]go - on"},
        {"text": "nin2 hao3 /həˈloʊ/[pause 3.2s][sighs]go - on"},
    ),
    "lines": ("tts", {"input": "One.\r\nTwo"}, {"text": "One.。Two"}),
    "lines as they are": ("tts", {"input": "One.\r\nTwo", "normalize": False}, {"text": "One.\nTwo"}),
    "all of tts": (
        "tts",
        {"input": "Hi.", "instructions": "calm}", "language": "French", "ambient_sound": "rain", "duration_seconds": 2},
        {"text": "Hi.", "instruction": "calm}", "language": "French", "ambient_sound": "rain", "tokens": 25},
    ),
    "a recording and a sound in it": (
        "tts",
        {"input": "Hi.", "quality": "a studio's", "sound_event": "a door", "language": " "},
        {"text": "Hi.", "quality": "a studio's", "sound_event": "a door"},
    ),
    "a language by its other name": (
        "tts",
        {"input": "Hi.", "lang_code": "French"},
        {"text": "Hi.", "language": "French"},
    ),
    "a length before it is stretched": (
        "tts",
        {"input": "Hi.", "duration_seconds": 2, "speed": 0.5},
        {"text": "Hi.", "tokens": 12},
    ),
    "a voice, cloned": (
        "tts",
        {"input": "Hi.", "voice": "alice", "duration_seconds": 1},
        {"text": "Hi.", "tokens": 12},
    ),
    "a voice, continued": (
        "tts",
        {"input": "Hi.", "voice": "alice", "mode": "voice_clone_and_continuation"},
        {"text": "I am Alice. Hi."},
    ),
    "a dialogue of tts": (
        "tts",
        {"dialogue": [{"speaker": 1, "text": "a"}, {"speaker": 2, "text": "b"}]},
        {"text": "[S1]a[S2]b"},
    ),
    "a voice from its description": ("voice", SAILOR, {"text": "Ahoy!", "instruction": "an old sailor, hoarse"}),
    "OpenAI's name for no voice": (
        "voice",
        SAILOR | {"voice": "alloy"},
        {"text": "Ahoy!", "instruction": SAILOR["instructions"]},
    ),
    "a description, tidied": (
        "voice",
        {"input": "Ahoy!", "instruction": "old...  and slow"},
        {"text": "Ahoy!", "instruction": "old。and slow"},
    ),
    "a sound": ("sound", {"input": "rain on a roof", "voice": "default"}, {"ambient_sound": "rain on a roof"}),
    "a sound by its field": (
        "sound",
        {"ambient_sound": "rain", "duration_seconds": 10},
        {"ambient_sound": "rain", "tokens": 125},
    ),
    "the shortest sound": (
        "sound",
        {"input": "a click", "duration_seconds": 0.01},
        {"ambient_sound": "a click", "tokens": 1},
    ),
    "dialogues pass over the language": ("ttsd", {"input": "Hi.", "language": "fr"}, {"text": "[S1]Hi."}),
    "dialogues have instructions": (
        "ttsd",
        {"input": "Hi.", "instructions": "calm"},
        {"text": "[S1]Hi.", "instruction": "calm"},
    ),
}


@pytest.mark.parametrize("case", MEANT)
def test_fields_come_to_a_user_turn(store: VoiceStore, tmp_path: Path, case: str):
    name, fields, turn = MEANT[case]
    plan = plan_of(name, fields, store, tmp_path)
    assert len(plan.parts) == 1
    assert taken(name, plan.session(0, 0, [])) == turn


REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a length of a dialogue": (
        "ttsd", {"input": "a", "duration_seconds": 3}, "duration_seconds",
        "MOSS-TTSD takes none; leave it out, or ask MOSS-TTS or MOSS-SoundEffect, which does",
    ),
    "a code of a language": ("tts", {"input": "a", "language": "fr"}, "language", "its name in English"),
    "a number for a language": ("tts", {"input": "a", "language": 3}, "language", "its name in English"),
    "no length": ("tts", {"input": "a", "duration_seconds": 0}, "duration_seconds", "a length above 0"),
    "an endless length": ("tts", {"input": "a", "duration_seconds": 1e9}, "duration_seconds", "at most 8000 s"),
    "a length of what continues": (
        "tts", {"input": "a", "voice": "alice", "mode": "continuation", "duration_seconds": 3}, "duration_seconds",
        "mode continuation has no length of its own",
    ),
    "a length of parts": (
        "tts", {"input": LONG, "split_seconds": 10, "duration_seconds": 3}, "duration_seconds", "more than one part",
    ),
    "a voice without a description": ("voice", {"input": "Ahoy!"}, "instructions", "VoiceGenerator works from it"),
    "a blank description": ("voice", {"input": "Ahoy!", "instructions": " "}, "instructions", "works from it"),
    "a stored voice": ("voice", SAILOR | {"voice": "alice"}, "voice", "MOSS-TTSD or MOSS-TTS, which does; `default`"),
    "stored voices": ("voice", SAILOR | {"voices": {"S1": "alice"}}, "voices", "MOSS-VoiceGenerator takes none"),
    "clips": ("voice", SAILOR | {"references": [{"audio": CLIP}]}, "references", "takes none"),
    "another server's clip": ("voice", SAILOR | {"ref_audio": CLIP}, "ref_audio", "takes none"),
    "a mode": ("voice", SAILOR | {"mode": "voice_clone"}, "mode", "mode: one of"),
    "turns": ("voice", {"instructions": "a", "dialogue": [{"speaker": 1, "text": "a"}]}, "dialogue", "without turns"),
    "parts": ("voice", SAILOR | {"split": True}, "split", "without turns; leave it out, or ask MOSS-TTSD"),
    "tags": ("voice", SAILOR | {"input": "[S1] Ahoy!"}, "input", r"MOSS-VoiceGenerator has no speakers, got \[S1\]"),
    "a sound behind a voice": ("voice", SAILOR | {"ambient_sound": "sea"}, "ambient_sound", "takes none"),
    "a language of a voice": ("voice", SAILOR | {"language": "French"}, "language", "ask MOSS-TTS, which does"),
    "a dialogue for a sound": ("sound", {"input": "[S1] Hi. [S2] Ho."}, "input", r"has no speakers, got \[S1\]"),
    "no sound": ("sound", {}, "input", "MOSS-SoundEffect works from it"),
    "two sounds": ("sound", {"input": "rain", "ambient_sound": "sea"}, "ambient_sound", "mean the same; send one"),
    "a quality of a dialogue": ("ttsd", {"input": "a", "quality": "good"}, "quality", "ask MOSS-TTS, which does"),
    "a sound in a voice": ("voice", SAILOR | {"sound_event": "sea"}, "sound_event", "ask MOSS-TTS, which does"),
    "instructions for a sound": ("sound", {"input": "rain", "instructions": "loud"}, "instructions", "takes none"),
    "a voice for a sound": ("sound", {"input": "rain", "voice": "alice"}, "voice", "MOSS-SoundEffect takes none"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_model_has_no_use_for_is_refused(store: VoiceStore, tmp_path: Path, case: str):
    name, fields, param, message = REFUSED[case]
    with pytest.raises(BadField, match=message) as refusal:
        plan_of(name, fields, store, tmp_path)
    assert refusal.value.param == param


def test_tts_clones_a_voice_unless_it_is_told_to_continue(store: VoiceStore, tmp_path: Path):
    plan = plan_of("tts", {"input": "Hi.", "voice": "alice"}, store, tmp_path)
    session = plan.session(0, 0, [])
    assert session.audio_data == [b"alice's"]
    assert session.sampling_params["custom_params"]["mode"] == "voice_clone"


def test_a_length_that_is_wished_for_is_the_guard_against_one_without_an_end(store: VoiceStore, tmp_path: Path):
    assert plan_of("sound", {"input": "rain", "duration_seconds": 10}, store, tmp_path).part_frames == [189]
    assert plan_of("sound", {"input": "rain"}, store, tmp_path).part_frames == [500]  # 3 times 10 s, and 10 s
    plan = plan_of("sound", {"input": "rain", "duration_seconds": 10, "max_seconds": 2}, store, tmp_path)
    assert plan.session(0, 0, []).sampling_params["max_new_tokens"] == 25


def test_parts_of_one_speaker_are_carried_without_tags(store: VoiceStore, tmp_path: Path):
    plan = plan_of("tts", {"input": LONG, "split_seconds": 20}, store, tmp_path)
    assert len(plan.parts) > 3
    assert " ".join(plan.parts) == LONG
    session = plan.session(2, 0, [Clip(b"first", plan.parts[0]), Clip(b"second", plan.parts[1])])
    assert session.text == "${normalize_text}" + " ".join(plan.parts[:3])
    assert session.sampling_params["custom_params"]["mode"] == "continuation"


def test_a_long_text_of_a_designed_voice_stays_one(store: VoiceStore, tmp_path: Path):
    assert plan_of("voice", SAILOR | {"input": LONG}, store, tmp_path).parts == [LONG]
