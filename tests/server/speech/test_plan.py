"""What a request for speech means: sessions as `/generate` would be sent them, one after the other."""

import asyncio
import base64
import io
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_manager import FRAME_SAMPLES, SAMPLE_RATE, STOP, FakeManager, event, frames_of

from sglang_moss.errors import BadRequest, BadText
from sglang_moss.request.settings import RequestOptions
from sglang_moss.request.turns import speech_seconds, turns_of
from sglang_moss.server.errors import BadField
from sglang_moss.server.speech.fields import SpeechFields
from sglang_moss.server.speech.narration import Narration
from sglang_moss.server.speech.plan import SpeechPlan, read_plan
from sglang_moss.server.speech.sessions import Engine, Session
from sglang_moss.server.speech.voice_names import VoiceNames
from sglang_moss.server.speech.voice_store import VoiceStore

CLIP = base64.b64encode(b"clip").decode()
GUARD_OF_A = 139  # frames: 3 times the estimate for "a", and 10 s
LONG = " ".join(f"This is sentence number {i:04} of the script." for i in range(40))


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    store = VoiceStore(tmp_path / "voices", 5)
    store.add("alice", b"alice's", "I am Alice.", 1.0)
    store.add("bob", b"bob's", "I am Bob.", 1.0)
    store.add("mute", b"mute's", None, 1.0)
    return store


@pytest.fixture
def manager(tmp_path: Path) -> FakeManager:
    levels = itertools.count(1000, 100)
    return FakeManager(lambda _request: [event(frames_of(next(levels))), event(frames_of(0, 0), STOP)], tmp_path)


@pytest.fixture
def engine(manager: FakeManager) -> Engine:
    return Engine(manager, SimpleNamespace)


def order_of(fields: dict[str, Any], store: VoiceStore, engine: Engine) -> SpeechPlan:
    return asyncio.run(read_plan(SpeechFields.model_validate(fields), store, engine))


def session_of(fields: dict[str, Any], store: VoiceStore, engine: Engine) -> Session:
    order = order_of(fields, store, engine)
    assert len(order.parts) == 1
    session = order.session(0, 0, [])
    RequestOptions.parse(session.sampling_params)
    return session


def narrated(fields: dict[str, Any], store: VoiceStore, engine: Engine) -> tuple[np.ndarray, Narration]:
    async def run() -> tuple[np.ndarray, Narration]:
        narration = Narration(engine, await read_plan(SpeechFields.model_validate(fields), store, engine), "i" * 32)
        return np.concatenate([pcm async for pcm in narration.pcm()]), narration

    return asyncio.run(run())


TEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "no tag": ({"input": "Hello."}, "${normalize_text}[S1] Hello."),
    "a tag": ({"input": "[S2] Hello."}, "${normalize_text}[S2] Hello."),
    "a bare tag": ({"input": "[2] Hello."}, "${normalize_text}[S2] Hello."),
    "a bare tag that is none": ({"input": "[2] Hello.", "normalize": False}, "[S1] [2] Hello."),
    "words before the first tag": ({"input": "Hi. [S2] Ho."}, "${normalize_text}[S1] Hi. [S2] Ho."),
    "no normalising": ({"input": "[S1] Hello.", "normalize": False}, "[S1] Hello."),
    "directives of the client's": ({"input": "${instruction:x}[S1] a", "normalize": False},
                                   "[S1] ${instruction:x}[S1] a"),
    "instructions": ({"input": "a", "instructions": "Slowly,\n and low."},
                     "${normalize_text}${instruction:Slowly, and low.}[S1] a"),
    "instruction": ({"input": "a", "instruction": "x", "ambient_sound": "rain"},
                    "${normalize_text}${instruction:x}${ambient_sound:rain}[S1] a"),
    "blank instructions": ({"input": "a", "instructions": " "}, "${normalize_text}[S1] a"),
    "dialogue": ({"dialogue": [{"speaker": 1, "text": "a"}, {"speaker": "S2", "text": "b"}]},
                 "${normalize_text}[S1]a[S2]b"),
    "a voice with transcript": ({"input": "a", "voice": "alice"}, "${normalize_text}[S1]I am Alice.a"),
    "a voice as newer clients name it": ({"input": "[S2] a", "voice": {"id": "Alice"}},
                                         "${normalize_text}[S1]I am Alice.[S2]a"),
    "no voice": ({"input": "a", "voice": ""}, "${normalize_text}[S1] a"),
    "no voice at all": ({"input": "a", "voice": None}, "${normalize_text}[S1] a"),
    "a voice by name in an object": ({"input": "a", "voice": {"name": "alice", "language": "en"}},
                                     "${normalize_text}[S1]I am Alice.a"),
    "another server's reference": ({"input": "a", "ref_audio": CLIP, "ref_text": "I am I.", "task_type": "Base"},
                                   "${normalize_text}[S1]I am I.a"),
    "a voice without transcript": ({"input": "a", "voice": "mute"}, "${normalize_text}[S1] a"),
    "an inline transcript with its tag": (
        {"input": "a", "references": [{"audio": CLIP, "text": "[S1] I am I."}]}, "${normalize_text}[S1]I am I.a"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_text_of_the_session(store: VoiceStore, engine: Engine, name: str):
    fields, text = TEXTS[name]
    assert session_of(fields, store, engine).text == text


def test_names_and_clips_mix_by_speaker(store: VoiceStore, engine: Engine):
    fields = {
        "input": "[S1] a [S2] b [S3] c",
        "voices": {"S3": "bob", "S1": {"id": "alice"}, "S4": "default"},
        "references": [{"audio": CLIP, "text": "I am two.", "speaker": 2}],
    }
    session = session_of(fields, store, engine)
    assert session.audio_data == [b"alice's", CLIP, b"bob's"]
    assert session.text == "${normalize_text}[S1]I am Alice.[S2]I am two.[S3]I am Bob.[S1]a[S2]b[S3]c"
    assert session.sampling_params["custom_params"]["mode"] == "voice_clone_and_continuation"


MODES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "generation"),
    "default voice": ({"voice": "default"}, "generation"),
    "known words": ({"voice": "alice"}, "voice_clone_and_continuation"),
    "unknown words": ({"voice": "mute"}, "voice_clone"),
    "some known words": ({"voices": {"S1": "alice", "S2": "mute"}}, "voice_clone"),
    "as asked": ({"voice": "alice", "mode": "continuation"}, "continuation"),
}


@pytest.mark.parametrize("name", MODES)
def test_mode_of_the_session(store: VoiceStore, engine: Engine, name: str):
    fields, mode = MODES[name]
    assert session_of({"input": "a", **fields}, store, engine).sampling_params["custom_params"]["mode"] == mode


def test_settings_are_passed_on(store: VoiceStore, engine: Engine):
    fields = {
        "input": "a", "temperature": 0.5, "top_p": 0.5, "top_k": 3, "repetition_penalty": 1.2, "seed": 9,
        "max_seconds": 0.56, "chunk_frames": 4, "first_frames": 2,
    }  # fmt: skip
    assert session_of(fields, store, engine).sampling_params == {
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 3,
        "repetition_penalty": 1.2,
        "sampling_seed": 9,
        "max_new_tokens": 7,
        "custom_params": {"mode": "generation", "chunk_frames": 4, "first_frames": 2},
    }
    guarded = {"max_new_tokens": GUARD_OF_A, "custom_params": {"mode": "generation"}}
    params = session_of({"input": "a"}, store, engine).sampling_params
    assert 0 <= params.pop("sampling_seed") < 2**53
    assert params == guarded


def limits_of(fields: dict[str, Any], store: VoiceStore, engine: Engine) -> list[int]:
    plan = order_of(fields, store, engine)
    return [plan.session(i, 0, []).sampling_params["max_new_tokens"] for i in range(len(plan.parts))]


def test_a_speech_is_cut_at_some_times_what_its_script_suggests(store: VoiceStore, engine: Engine):
    assert limits_of({"input": "a"}, store, engine) == [GUARD_OF_A]
    (longer,) = limits_of({"input": LONG}, store, engine)
    assert longer == engine.frames_in(3 * sum(speech_seconds(t.words) for t in turns_of(LONG)) + 10)
    parts = limits_of({"input": LONG, "split_seconds": 20}, store, engine)
    assert len(parts) > 3
    assert sum(parts) == pytest.approx(longer + 125 * (len(parts) - 1), rel=0.05)  # ten seconds more a part
    assert limits_of({"input": LONG, "max_seconds": 8000}, store, engine) == [100_000]


def test_the_guard_is_the_servers_to_set(store: VoiceStore, manager: FakeManager):
    manager.server_args.speech_length_factor = 1.0
    assert limits_of({"input": "a"}, store, Engine(manager, SimpleNamespace)) == [129]
    manager.server_args.speech_length_factor = 0
    assert limits_of({"input": "a"}, store, Engine(manager, SimpleNamespace)) == [180_000]  # four hours


def test_a_request_speaks_no_longer_than_the_server_allows(store: VoiceStore, manager: FakeManager):
    manager.server_args.max_audio_seconds = 60.0
    engine = Engine(manager, SimpleNamespace)
    assert limits_of({"input": "Hi. " * 20}, store, engine) == [engine.frames_in(3 * (0.3 + 79 / 13) + 10)]
    assert limits_of({"input": "Hi. " * 100}, store, engine) == [750]
    assert limits_of({"input": LONG, "max_seconds": 60}, store, engine) == [750]
    for fields, param in (
        ({"input": LONG}, "input"),
        ({"dialogue": [{"speaker": 1, "text": LONG}]}, "dialogue"),
        ({"input": "a", "max_seconds": 60.1}, "max_seconds"),
        ({"input": "a", "max_seconds": 31, "speed": 2}, "max_seconds"),
    ):
        with pytest.raises(BadField, match=r"60|30") as refusal:
            order_of(fields, store, engine)
        assert refusal.value.param == param


@pytest.mark.parametrize(("speed", "frames"), [(0.5, 50), (1, 100), (2.0, 200)])
def test_max_seconds_are_those_that_are_heard(store: VoiceStore, engine: Engine, speed: float, frames: int):
    assert limits_of({"input": "a", "max_seconds": 8, "speed": speed}, store, engine) == [frames]


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_speech_that_was_cut_says_so(store: VoiceStore, tmp_path: Path, reason: str):
    manager = FakeManager(lambda _: [event(frames_of(1), {"type": reason})], tmp_path)
    assert narrated({"input": "a"}, store, Engine(manager, SimpleNamespace))[1].finish_reason == reason


def test_parts_that_find_no_time_left_are_cut(store: VoiceStore, engine: Engine):
    _pcm, narration = narrated({"input": LONG, "split_seconds": 20, "max_seconds": 0.4}, store, engine)
    assert narration.finish_reason == "length"


ALIASES: dict[str, tuple[str, list[bytes] | None]] = {
    "alloy": ("alloy", [b"alice's"]),
    "in capitals": ("ALLOY", [b"alice's"]),
    "stored goes before alias": ("bob", [b"bob's"]),
    "openai's own": ("nova", [b"bob's"]),
    "nobody's voice": ("narrator", None),
}


@pytest.mark.parametrize("name", ALIASES)
def test_other_names_mean_voices_where_the_server_says_so(tmp_path: Path, engine: Engine, name: str):
    given, audio = ALIASES[name]
    names = VoiceNames.of(["alloy=alice", "bob=alice", "narrator=default"], "bob")
    store = VoiceStore(tmp_path / "voices", 5, names)
    store.add("alice", b"alice's", None, 1.0)
    store.add("bob", b"bob's", None, 1.0)
    assert session_of({"input": "a", "voice": given}, store, engine).audio_data == audio
    assert session_of({"input": "a", "voices": {"S1": given}}, store, engine).audio_data == audio
    with pytest.raises(BadField, match="nobody"):
        order_of({"input": "a", "voice": "nobody"}, store, engine)


def test_an_alias_of_a_voice_that_is_not_stored_names_the_voice(tmp_path: Path, engine: Engine):
    store = VoiceStore(tmp_path / "voices", 5, VoiceNames.of(["alloy=carol"], None))
    with pytest.raises(BadField, match="carol"):
        order_of({"input": "a", "voice": "alloy"}, store, engine)
    with pytest.raises(BadField, match="nova"):
        order_of({"input": "a", "voice": "nova"}, store, engine)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too fast": ({"input": "a", "speed": 2.1}, "speed"),
    "too slow": ({"input": "a", "speed": 0.4}, "speed"),
    "no speed": ({"input": "a", "speed": float("nan")}, "speed"),
    "two first voices": ({"input": "a", "voice": "alice", "ref_audio": CLIP}, "ref_audio"),
    "neither": ({}, "input"),
    "both": ({"input": "a", "dialogue": []}, "dialogue"),
    "sixth speaker": ({"dialogue": [{"speaker": 6, "text": "a"}]}, "dialogue.0.speaker"),
    "speaker zero": ({"dialogue": [{"speaker": "S0", "text": "a"}]}, "dialogue.0.speaker"),
    "tags in a turn": ({"dialogue": [{"speaker": 1, "text": "a [S2] b"}]}, "dialogue.0.text"),
    "unknown voice": ({"input": "a", "voice": "nobody"}, "voice"),
    "unknown voice of a speaker": ({"input": "a", "voices": {"S1": "../alice"}}, "voices"),
    "voice of nobody": ({"input": "a", "voices": {"alice": "alice"}}, "voices"),
    "voice of the sixth": ({"input": "a", "voices": {"S6": "alice"}}, "voices"),
    "two voices": ({"input": "a", "voice": "alice", "voices": {"1": "bob"}}, "voices"),
    "a gap": ({"input": "a", "voices": {"S2": "bob"}}, "voices"),
    "six clips": ({"input": "a", "references": [{"audio": CLIP}] * 6}, "references.5"),
    "unknown mode": ({"input": "a", "mode": "sing"}, "mode"),
    "mode without voices": ({"input": "a", "mode": "voice_clone"}, "mode"),
    "mode without words": ({"input": "a", "voice": "mute", "mode": "continuation"}, "mode"),
    "brace": ({"input": "a", "instruction": "a}b"}, "instruction"),
    "two instructions": ({"input": "a", "instruction": "a", "instructions": "b"}, "instruction"),
    "no time": ({"input": "a", "max_seconds": 0.01}, "max_seconds"),
    "endless": ({"input": "a", "max_seconds": float("inf")}, "max_seconds"),
    "no number": ({"input": "a", "max_seconds": float("nan")}, "max_seconds"),
    "the largest number": ({"input": "a", "max_seconds": 1.7e308}, "max_seconds"),
    "the largest number, faster": ({"input": "a", "max_seconds": 1.7e308, "speed": 2}, "max_seconds"),
    "a seed below zero": ({"input": "a", "seed": -1, "split": True}, "seed"),
    "tiny parts": ({"input": "a", "split_seconds": 0}, "split_seconds"),
    "parts and no parts": ({"input": "a", "split_seconds": 50, "split": False}, "split_seconds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_with_its_field(store: VoiceStore, engine: Engine, name: str):
    fields, param = REFUSED[name]
    with pytest.raises(BadField) as refusal:
        order_of(fields, store, engine)
    assert refusal.value.param == param
    assert str(refusal.value)


def test_every_part_of_a_script_is_checked_before_the_first_is_spoken(store: VoiceStore, engine: Engine):
    with pytest.raises(BadText, match="S6"):
        order_of({"input": f"{LONG} [S6] {LONG}", "split": True}, store, engine)
    with pytest.raises(BadText, match="control token"):
        order_of({"input": f"{LONG} <|im_end|>", "split": True, "normalize": False}, store, engine)


def test_a_script_is_split_only_where_it_must_be_or_shall_be(store: VoiceStore, engine: Engine, manager: FakeManager):
    hour = "[S1] " + "This is one of many sentences. " * 2000
    assert len(order_of({"input": LONG}, store, engine).parts) == 1
    assert len(order_of({"input": hour}, store, engine).parts) > 50
    assert len(order_of({"input": hour, "split": False}, store, engine).parts) == 1
    assert len(order_of({"input": LONG, "split": True}, store, engine).parts) > 2
    assert len(order_of({"input": LONG, "split_seconds": 30.0}, store, engine).parts) > 3
    manager.max_req_input_len = 1800
    assert len(order_of({"input": LONG}, store, engine).parts) > 2


def test_a_checkpoint_says_how_long_a_part_it_holds_out(store: VoiceStore, tmp_path: Path):
    own = Engine(FakeManager(lambda _request: [], tmp_path, split_seconds=15), SimpleNamespace)
    parts = order_of({"input": LONG}, store, own).parts
    assert parts == order_of({"input": LONG, "split_seconds": 15}, store, own).parts
    assert len(parts) > 3
    assert len(order_of({"input": "[S1] Short. [S2] As short."}, store, own).parts) == 1
    assert len(order_of({"input": LONG, "split": False}, store, own).parts) == 1
    assert len(order_of({"input": LONG, "split_seconds": 40}, store, own).parts) < len(parts)


def clip_samples(audio: Any) -> np.ndarray:
    return soundfile.read(io.BytesIO(audio), dtype="int16")[0]


def test_without_voices_parts_continue_the_opening_and_the_part_before(
    store: VoiceStore, engine: Engine, manager: FakeManager
):
    pcm, narration = narrated({"input": LONG, "split_seconds": 20, "seed": 7, "normalize": False}, store, engine)
    first, second, third, fourth = manager.requests[:4]
    texts = [first.text, second.text.removeprefix(first.text)]
    texts.append(third.text.removeprefix(second.text))
    assert first.audio_data is None
    assert all(text and text != whole.text for text, whole in zip(texts[1:], (second, third), strict=True))
    assert [clip_samples(clip)[0] for clip in second.audio_data] == [1000]
    assert [clip_samples(clip)[0] for clip in third.audio_data] == [1000, 1100]
    assert [clip_samples(clip)[0] for clip in fourth.audio_data] == [1000, 1200]
    assert fourth.text.startswith(first.text)
    assert texts[1] not in fourth.text
    assert texts[2] in fourth.text
    modes = [request.sampling_params["custom_params"]["mode"] for request in manager.requests]
    assert modes == ["generation"] + ["continuation"] * (len(modes) - 1)
    assert [request.sampling_params["sampling_seed"] for request in manager.requests[:3]] == [7, 8, 9]
    assert len(pcm) == len(modes) * 3 * FRAME_SAMPLES - (len(modes) - 1) * SAMPLE_RATE // 100
    assert narration.usage["input_tokens"] == 11 * len(modes)


def test_with_voices_parts_continue_them_and_the_part_before(store: VoiceStore, engine: Engine, manager: FakeManager):
    fields = {"input": LONG, "split": True, "voices": {"S1": "alice", "S2": "bob"}, "normalize": False}
    narrated(fields, store, engine)
    first, second, third = manager.requests[:3]
    assert first.audio_data == [b"alice's", b"bob's"]
    assert [*second.audio_data[:2], clip_samples(second.audio_data[2])[0]] == [b"alice's", b"bob's", 1000]
    assert [*third.audio_data[:2], clip_samples(third.audio_data[2])[0]] == [b"alice's", b"bob's", 1100]
    assert second.text.startswith("[S1]I am Alice.[S2]I am Bob.[S1]This is sentence number 0000")
    assert second.sampling_params["custom_params"]["mode"] == "continuation"


def test_voices_that_are_only_cloned_begin_each_part(store: VoiceStore, engine: Engine, manager: FakeManager):
    narrated({"input": LONG, "split": True, "voice": "mute", "normalize": False}, store, engine)
    assert {tuple(request.audio_data) for request in manager.requests} == {(b"mute's",)}
    assert {request.sampling_params["custom_params"]["mode"] for request in manager.requests} == {"voice_clone"}
    assert all(request.text.startswith("[S1]This is sentence") for request in manager.requests[1:])


def test_a_part_that_came_out_too_long_for_a_clip_is_not_carried(store: VoiceStore, tmp_path: Path):
    lengths = iter([1, 800, 1, 1, 1, 1, 1, 1, 1])
    manager = FakeManager(lambda _request: [event(frames_of(900, next(lengths)), STOP)], tmp_path)
    narrated({"input": LONG, "split": True}, store, Engine(manager, SimpleNamespace))
    assert [len(request.audio_data or ()) for request in manager.requests[:4]] == [0, 1, 1, 2]


def test_a_length_is_that_of_all_parts_together(store: VoiceStore, engine: Engine, manager: FakeManager):
    narrated({"input": LONG, "split_seconds": 10, "max_seconds": 0.4}, store, engine)
    assert [request.sampling_params["max_new_tokens"] for request in manager.requests] == [5, 2]


def test_sessions_of_a_speech_have_ids_of_which_none_begins_another(
    store: VoiceStore, engine: Engine, manager: FakeManager
):
    narrated({"input": LONG, "split_seconds": 5}, store, engine)
    rids = [request.rid for request in manager.requests]
    assert len(rids) > 10
    assert not any(a != b and b.startswith(a) for a in rids for b in rids)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ({"type": "abort", "message": "no audio: x", "status_code": 400}, BadRequest),
        ({"type": "abort", "message": "queue full", "status_code": 503}, Exception),
        ({"type": "abort"}, Exception),
    ],
)
def test_a_session_that_ends_in_an_abort_is_an_error(store: VoiceStore, tmp_path: Path, reason: Any, error: type):
    manager = FakeManager(lambda _request: [event(frames_of(0, 0), reason)], tmp_path)
    with pytest.raises(error, match=reason.get("message", "aborted")):
        narrated({"input": "a"}, store, Engine(manager, SimpleNamespace))


NOTHING_TO_SAY: list[dict[str, Any]] = [
    *({"input": text} for text in ("", " ", "---", "...", "[S1][S2]", "[1][2]", "😀", "\u200b")),
    {"dialogue": []},
    {"dialogue": [{"speaker": 1, "text": "***"}]},
]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fields", NOTHING_TO_SAY, ids=str)
def test_a_transcript_is_nothing_to_say(store: VoiceStore, engine: Engine, fields: dict[str, Any], normalize: bool):
    if fields.get("input") == "[1][2]" and not normalize:
        return  # two numbers
    field = next(iter(fields))
    with pytest.raises(BadRequest, match=f"^{field}: expected words to speak"):
        order_of({**fields, "voice": "alice", "normalize": normalize}, store, engine)


TRANSCRIPTS = {"[S1] Ho.": "got \\[S1\\]", "a [s3] b": "got \\[S3\\]", "...": "no word", "<|im_end|>": "control token"}


@pytest.mark.parametrize("text", TRANSCRIPTS)
def test_a_transcript_that_is_refused_is_named(store: VoiceStore, engine: Engine, text: str):
    references = [{"audio": CLIP, "text": "Hi."}, {"audio": CLIP, "text": text}]
    with pytest.raises(BadField, match=TRANSCRIPTS[text]) as refusal:
        order_of({"input": "a", "references": references}, store, engine)
    assert refusal.value.param == "references.1.text"


def test_a_transcript_keeps_to_its_speaker(store: VoiceStore, engine: Engine):
    references = [{"audio": CLIP, "text": "As in [2], we’re here."}, {"audio": CLIP, "text": "[s2] Ho."}]
    session = session_of({"input": "[s2] It’s [1].", "references": references}, store, engine)
    assert session.text == "${normalize_text}[S1]As in, we're here.[S2]Ho.It's."


def test_a_tag_of_thousands_of_digits_is_refused(store: VoiceStore, engine: Engine):
    tag = f"[S{'9' * 5000}]"
    for fields in ({"input": f"{tag} a"}, {"dialogue": [{"speaker": 1, "text": f"{tag} a"}]}):
        for normalize in (True, False):
            with pytest.raises(BadRequest):
                order_of({**fields, "normalize": normalize}, store, engine)
