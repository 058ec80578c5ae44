"""What each model of the family takes, and what a client hears who sends another's request."""

import json
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN
from transformers import Qwen2Tokenizer

from sglang_moss.config import special_tokens
from sglang_moss.errors import BadReference, BadRequest, BadSetting, BadText
from sglang_moss.request.profile import PROFILES, TTSD, Profile
from sglang_moss.request.prompt import build_prompt, choose_mode, prompt_text, special_strings
from sglang_moss.request.script import Script, check_script, read_script
from sglang_moss.request.settings import ChannelSampling, RequestOptions, frames_allowed
from sglang_moss.request.template import FIELDS

FAMILY = [profile for name, profile in PROFILES.items() if name != "ttsd"]
TOKENIZER = Qwen2Tokenizer.from_pretrained(str(GOLDEN / "ttsd"))
TOKENS = special_tokens(json.loads((GOLDEN / "ttsd" / "config.json").read_text()))
SPECIAL = special_strings(TOKENIZER)


def asked(name: str, text: str, **custom: Any) -> Script:
    """A request of `/generate` as its fields are checked."""
    profile = PROFILES[name]
    options = RequestOptions.parse({"custom_params": custom}, profile)
    script = read_script(text, profile, options.fields)
    check_script(script, SPECIAL, profile=profile)
    return script


TAKEN: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("ttsd", "${instruction:calm}[S1] Hi.", {}, {"text": "[S1] Hi.", "instruction": "calm"}),
    ("ttsd", "[S1] Hi.", {"ambient_sound": "rain"}, {"text": "[S1] Hi.", "ambient_sound": "rain"}),
    ("ttsd", "${token:5}[S1] Hi.", {}, {"text": "${token:5}[S1] Hi."}),  # spoken, as the served path does
    ("ttsd", "${language:French}Hi.", {}, {"text": "${language:French}Hi."}),
    ("tts", "${token:25}Hi.", {"language": "French"}, {"text": "Hi.", "tokens": 25, "language": "French"}),
    ("tts", "${language:French}Hi.", {}, {"text": "Hi.", "language": "French"}),
    (
        "tts",
        "${token:25}${instruction:calm}${ambient_sound:rain}${language:French}Hi.",
        {"quality": "q", "sound_event": "e"},
        {
            "text": "Hi.",
            "tokens": 25,
            "instruction": "calm",
            "ambient_sound": "rain",
            "language": "French",
            "quality": "q",
            "sound_event": "e",
        },
    ),
    ("tts", "${instruction:calm}${token:25}Hi.", {}, {"text": "${token:25}Hi.", "instruction": "calm"}),
    ("tts", " ${token:25}Hi.", {}, {"text": " ${token:25}Hi."}),
    ("tts", "${token:2.5}Hi.", {}, {"text": "${token:2.5}Hi."}),
    ("voice", "${instruction:an old sailor}Ahoy.", {}, {"text": "Ahoy.", "instruction": "an old sailor"}),
    ("voice", "Ahoy.", {"instruction": "an old sailor"}, {"text": "Ahoy.", "instruction": "an old sailor"}),
    ("sound", "", {"ambient_sound": "rain", "tokens": 125}, {"ambient_sound": "rain", "tokens": 125}),
    ("sound", "${token:007}${ambient_sound:rain}\n", {}, {"ambient_sound": "rain", "tokens": 7}),
    ("sound", "Ah!", {"ambient_sound": "rain"}, {"text": "Ah!", "ambient_sound": "rain"}),
]


@pytest.mark.parametrize(("name", "text", "custom", "fields"), TAKEN)
def test_fields_come_from_directives_and_settings(name: str, text: str, custom: dict[str, Any], fields: dict[str, Any]):
    assert {key: value for key, value in asked(name, text, **custom).fields.items() if value is not None} == fields


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("ttsd", "[S1] Hi.", {"tokens": 9}, "tokens: MOSS-TTSD takes none; .* ask MOSS-TTS or MOSS-SoundEffect"),
    ("ttsd", "[S1] Hi.", {"language": "French"}, "language: MOSS-TTSD takes none; .* ask MOSS-TTS, which does"),
    ("ttsd", "[S1] Hi.", {"quality": "q"}, "quality: MOSS-TTSD takes none"),
    (
        "ttsd",
        "${instruction:a}[S1] Hi.",
        {"instruction": "a"},
        "instruction stands in a directive and in custom_params",
    ),
    ("tts", "${token:9}Hi.", {"tokens": 9}, "tokens stands in a directive and in custom_params; keep one"),
    ("tts", "${token:0}Hi.", {}, "tokens: from 1 to 100000"),
    ("tts", "${token:999999999999999999999}Hi.", {}, "tokens: from 1 to 100000"),
    ("tts", "", {"language": "French"}, "text: expected words"),
    ("tts", "Hi.", {"language": "<|im_end|>"}, "language: .* control token"),
    ("tts", "Hi.", {"sound_event": "a\ud800"}, "sound_event: expected Unicode"),
    (
        "voice",
        "Ahoy.",
        {},
        r"instruction: MOSS-VoiceGenerator works from it, .* \$\{instruction:...\} or in custom_params",
    ),
    ("voice", "${instruction: }Ahoy.", {}, "instruction: MOSS-VoiceGenerator works from it"),
    ("voice", "${instruction:an old sailor}", {}, "text: expected words"),
    (
        "voice",
        "[S1] Ahoy.",
        {"instruction": "a sailor"},
        r"text: MOSS-VoiceGenerator has no speakers, got \[S1\]; .*TTSD",
    ),
    ("voice", "${token:9}Ahoy.", {"instruction": "a sailor"}, "tokens: MOSS-VoiceGenerator takes none"),
    (
        "voice",
        "Ahoy.",
        {"instruction": "a sailor", "ambient_sound": "sea"},
        "ambient_sound: .*ask MOSS-TTSD or MOSS-TTS or",
    ),
    ("sound", "Rolling thunder.", {}, r"ambient_sound: MOSS-SoundEffect works from it, .*\$\{ambient_sound:...\}"),
    (
        "sound",
        "",
        {"ambient_sound": "rain [S2] thunder"},
        r"ambient_sound: MOSS-SoundEffect has no speakers, got \[S2\]",
    ),
    ("sound", "[S1] Hi. [S2] Ho.", {"ambient_sound": "rain"}, r"text: MOSS-SoundEffect has no speakers, got \[S1\]"),
    ("sound", "", {"ambient_sound": "rain", "instruction": "loud"}, "instruction: MOSS-SoundEffect takes none"),
]


@pytest.mark.parametrize(("name", "text", "custom", "message"), REFUSED)
def test_what_a_model_does_not_know_is_refused_by_name(name: str, text: str, custom: dict[str, Any], message: str):
    with pytest.raises(BadRequest, match=message):
        asked(name, text, **custom)


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ({"tokens": "9"}, "tokens must be an integer"),
        ({"tokens": 0}, "tokens must be an integer in"),
        ({"tokens": True}, "tokens must be an integer"),
        ({"language": 3}, "custom_params.language must be a string, got 3"),
        ({"text": "Hi."}, "custom_params has no 'text'; known are mode, .*, instruction, tokens, .*, language"),
    ],
)
def test_values_of_another_type_are_refused(custom: dict[str, Any], message: str):
    with pytest.raises(BadSetting, match=message):
        RequestOptions.parse({"custom_params": custom}, PROFILES["tts"])


@pytest.mark.parametrize("name", ["voice", "sound"])
def test_references_are_refused_where_there_is_no_speaker(name: str):
    profile = PROFILES[name]
    with pytest.raises(
        BadReference, match=rf"audio_data: {profile.model} takes none; .*ask MOSS-TTSD or MOSS-TTS, which"
    ):
        choose_mode(None, 1, profile)
    with pytest.raises(BadSetting, match=f"mode: {profile.model} has generation only"):
        choose_mode("voice_clone", 0, profile)
    assert choose_mode(None, 0, profile).name == choose_mode("generation", 0, profile).name == "generation"


def test_references_are_cloned_by_tts_and_continued_by_ttsd():
    assert choose_mode(None, 1, PROFILES["tts"]).name == "voice_clone"
    assert choose_mode(None, 1).name == "voice_clone_and_continuation"
    assert choose_mode("voice_clone_and_continuation", 5, PROFILES["tts"]).continues
    with pytest.raises(BadReference, match="at most 5 references"):
        choose_mode(None, 6, PROFILES["tts"])


SAMPLING = {
    "ttsd": ((1.1, 0.9, 50), 1.1, (1.1, 0.9, 50)),
    "tts": ((1.7, 0.8, 25), 1.0, (1.5, 1.0, 50)),
    "voice": ((1.5, 0.6, 50), 1.1, (1.5, 1.0, 50)),
    "sound": ((1.5, 0.6, 50), 1.2, (1.5, 1.0, 50)),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_defaults_of_sampling_are_those_of_the_model_card(name: str):
    audio, penalty, text = SAMPLING[name]
    options = RequestOptions.parse({}, PROFILES[name])
    assert (options.audio, options.repetition_penalty) == (ChannelSampling(*audio), penalty)
    assert options.text == ChannelSampling(*text)


def test_the_text_channel_follows_the_codes_only_in_ttsd():
    params = {"temperature": 0.3, "top_k": 7, "custom_params": {"text_top_p": 0.5}}
    assert RequestOptions.parse(params).text == ChannelSampling(0.3, 0.5, 7)
    assert RequestOptions.parse(params, PROFILES["tts"]).text == ChannelSampling(1.5, 0.5, 50)


def test_a_length_that_is_wished_for_bounds_the_answer_unless_there_is_a_bound():
    assert frames_allowed(125) == 189  # as rows: ceil(1.5 x 125) + n_vq + 2
    assert RequestOptions.parse({}).frames_for(125) == 189
    assert RequestOptions.parse({"max_new_tokens": 7}).frames_for(125) == 7
    assert RequestOptions.parse({}).frames_for(None) is None


# Pinyin, sounds between slashes, pauses and remarks: whoever knows them must get them as they are written.
CONTROLS = [
    "nin2 hao3，qing3 wen4",
    "他说 nin2 hao3，然后走了。",
    "/həloʊ, meɪ aɪ/",
    "Say /ˈkæt.ə.pɪl.ɚ/ once.",
    "one[pause 3.2s]two",
    "你好[pause 3.2s]世界[pause 12s]。",
    "[laughs] Well, [whispers] come here.",
    "请模仿 {whisper} 的语气。",
    "It is half-past ten: 10:30, at https://x.y/z-a_b.",
]


@pytest.mark.parametrize("text", CONTROLS)
@pytest.mark.parametrize("profile", FAMILY, ids=lambda profile: profile.name)
def test_controls_pass_untouched_normalised_or_not(text: str, profile: Profile):
    for directive in ("", "${normalize_text}"):
        assert read_script(directive + text, profile).text == text


def test_only_the_voice_generator_normalises_its_instruction():
    text = "${normalize_text}${instruction:old  and slow...}Well... now"
    assert read_script(text, PROFILES["voice"]).fields | {"text": None} == Script(None, "old and slow。").fields
    assert read_script(text, PROFILES["tts"]).instruction == "old  and slow..."
    assert read_script(text, PROFILES["tts"]).text == "Well。now"


def test_a_sound_has_the_word_none_for_its_text():
    turn = prompt_text(asked("sound", "", ambient_sound="rain"), None, PROFILES["sound"])
    assert turn.endswith("- Ambient Sound:\nrain\n- Language:\nNone\n- Text:\nNone\n</user_inst>")
    assert turn.startswith("<user_inst>\n- Reference(s):\nNone\n")


def test_a_speaker_without_a_clip_leaves_a_hole_and_keeps_the_numbers():
    codes = np.zeros((2, TOKENS.n_vq), np.int32)
    mode = choose_mode("voice_clone", 3, PROFILES["tts"])
    script = asked("tts", "Hi.")
    with_hole = build_prompt(script, [codes, None, codes], None, TOKENIZER, TOKENS, mode, profile=PROFILES["tts"])
    ids = TOKENIZER.encode("[S3]:\n", add_special_tokens=False)
    assert any(with_hole.rows[i : i + len(ids), 0].tolist() == ids for i in range(len(with_hole.rows)))
    assert (with_hole.rows[:, 0] == TOKENS.audio_start).sum() == 2


def test_every_profile_has_an_example_that_it_takes_and_a_place_in_the_template():
    for profile in PROFILES.values():
        assert set(profile.fields) <= set(FIELDS)
        assert set(profile.directives) <= set(FIELDS)
        custom = {name: value for name, value in profile.example.items() if name != "text"}
        asked(profile.name, str(profile.example.get("text", "")), **custom)
    assert TTSD is PROFILES["ttsd"]


def test_a_checkpoint_brings_defaults_and_a_request_overrules_them():
    profile = TTSD.with_sampling({"temperature": 0.7, "repetition_penalty": 1})
    options = RequestOptions.parse({"top_p": 0.5}, profile)
    assert options.audio == options.text == ChannelSampling(temperature=0.7, top_p=0.5, top_k=50)
    assert options.repetition_penalty == 1.0
    assert RequestOptions.parse({"temperature": 2}, profile).audio.temperature == 2
    assert profile.is_ttsd, "what is MOSS-TTSD's alone does not hang on its defaults"
    assert PROFILES["tts"].with_sampling({"temperature": 0.7}).text == PROFILES["tts"].text


@pytest.mark.parametrize(
    ("sampling", "problem"),
    [
        ([], "sampling must be an object, got list"),
        ({"do_sample": True}, "sampling has no 'do_sample'; known are temperature, top_p, top_k, repetition_penalty"),
        ({"top_p": 0}, r"top_p must be a number in \(0, 1\], got 0"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"top_k": 0}, "top_k must be -1"),
        ({"repetition_penalty": 3}, "repetition_penalty must be a number"),
    ],
)
def test_defaults_that_no_request_could_have_are_refused(sampling: Any, problem: str):
    with pytest.raises(BadSetting, match=problem):
        TTSD.with_sampling(sampling)


def test_a_checkpoint_says_how_much_of_a_script_it_holds_out():
    assert TTSD.split_seconds is None
    assert TTSD.with_defaults({"profile": "ttsd"}) == TTSD
    profile = TTSD.with_defaults({"split_seconds": 15, "sampling": {"temperature": 0.3}})
    assert (profile.split_seconds, profile.audio.temperature) == (15.0, 0.3)


@pytest.mark.parametrize("seconds", [0, 4.9, True, "15", None, float("inf"), float("nan")])
def test_a_length_of_parts_that_no_request_could_have_is_refused(seconds: Any):
    with pytest.raises(BadSetting, match="split_seconds must be a number of at least 5"):
        TTSD.with_defaults({"split_seconds": seconds})


def test_a_text_of_no_words_is_missed_only_where_one_is_needed():
    for name in ("ttsd", "tts"):
        with pytest.raises(BadText, match="expected words"):
            asked(name, "...")
