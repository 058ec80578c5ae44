"""What `sampling_params` may hold: defaults, ranges, and refusals that name the setting."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.errors import BadRequest, BadSetting
from sglang_moss.request.prompt import MODES
from sglang_moss.request.settings import SEED_LIMIT, ChannelSampling, RequestOptions

parse = RequestOptions.parse

# SGLang's settings for text output, with values that switch them off or that say nothing about audio.
WITHOUT_EFFECT = {
    "n": 1,
    "min_p": 0.0,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "min_new_tokens": 0,
    "stop": [],
    "stop_token_ids": [],
    "stop_regex": "",
    "logit_bias": {},
    "skip_special_tokens": False,
    "spaces_between_special_tokens": True,
    "no_stop_trim": True,
    "stream_interval": 8,
}
UNSUPPORTED = {
    "n": 2,
    "min_p": 0.05,
    "frequency_penalty": 0.1,
    "presence_penalty": -1,
    "min_new_tokens": 1,
    "stop": "[S2]",
    "stop_token_ids": [7],
    "stop_regex": ".*",
    "logit_bias": {"7": 1.0},
    "json_schema": "{}",
    "regex": "",
    "ebnf": "root ::= x",
    "structural_tag": "{}",
}
HUGE = 10**400  # JSON allows it, a float cannot hold it
NOT_NUMBERS = ["1", True, [1], {}, math.nan, math.inf, -math.inf, HUGE, -HUGE]
NOT_INTEGERS = ["1", True, 1.0, [1], math.nan]


def test_defaults_are_the_recommended_sampling():
    options = parse({})
    assert options.text == options.audio == ChannelSampling(temperature=1.1, top_p=0.9, top_k=50)
    assert options.repetition_penalty == 1.1
    assert (options.max_frames, options.ignore_eos, options.mode, options.return_codes) == (None, False, None, False)
    assert 0 <= options.seed < SEED_LIMIT


def test_every_null_means_the_default():
    names = [
        "temperature",
        "top_p",
        "top_k",
        "repetition_penalty",
        "max_new_tokens",
        "ignore_eos",
        "n",
        "stop",
        "regex",
    ]
    custom = ["mode", "return_codes", "text_temperature", "text_top_p", "text_top_k"]
    nulls = dict.fromkeys(names) | {"custom_params": dict.fromkeys(custom), "sampling_seed": 5}
    assert parse(nulls) == parse({"custom_params": None, "sampling_seed": 5}) == parse({"sampling_seed": 5})


def test_seeds_differ_where_none_is_given():
    assert len({parse({"sampling_seed": None}).seed for _ in range(50)}) == 50


@pytest.mark.parametrize("seed", [0, 1, 2**53 + 1, 2**63 - 1])
def test_a_seed_is_taken_as_it_is(seed):
    assert parse({"sampling_seed": seed}).seed == seed


def test_settings_of_the_request_drive_both_channels():
    options = parse({"temperature": 0, "top_p": 1, "top_k": -1, "repetition_penalty": 2})
    assert options.text == options.audio == ChannelSampling(temperature=0.0, top_p=1.0, top_k=-1)
    assert options.repetition_penalty == 2.0


def test_the_text_channel_may_have_its_own_settings():
    custom = {"text_temperature": 1.5, "text_top_k": 7}
    options = parse({"temperature": 0.5, "top_p": 0.7, "top_k": 3, "custom_params": custom})
    assert options.text == ChannelSampling(temperature=1.5, top_p=0.7, top_k=7)
    assert options.audio == ChannelSampling(temperature=0.5, top_p=0.7, top_k=3)


def test_settings_without_effect_are_let_through():
    assert parse(WITHOUT_EFFECT | {"sampling_seed": 5}) == parse({"sampling_seed": 5})


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-45, 9.9e-7])
def test_a_temperature_that_float32_cannot_divide_by_is_greedy(temperature):
    options = parse({"temperature": temperature})
    assert options.text.temperature == options.audio.temperature == 0.0
    custom = parse({"temperature": 1e-6, "custom_params": {"text_temperature": temperature}})
    assert (custom.text.temperature, custom.audio.temperature) == (0.0, 1e-6)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_setting_that_cannot_be_honoured_is_refused_by_name(name):
    with pytest.raises(BadSetting, match=rf"sampling_params\.{name} is not supported"):
        parse({name: UNSUPPORTED[name]})


@pytest.mark.parametrize("place", ["sampling_params", "custom_params"])
def test_an_unknown_name_is_refused_and_cut_short(place):
    unknown = {"temprature" + "e" * 1000: 1.0}
    known = "temperature, .*, custom_params, n$" if place == "sampling_params" else "mode, "
    with pytest.raises(BadSetting, match=f"{place} has no 'tempratureee*'; known are {known}") as caught:
        parse(unknown if place == "sampling_params" else {"custom_params": unknown})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("temperature", value) for value in [-0.1, 100.1, *NOT_NUMBERS]),
        *(("top_p", value) for value in [0, -0.1, 1.01, *NOT_NUMBERS]),
        *(("repetition_penalty", value) for value in [0.0, 1e-45, 1e-3, -1, 2.1, *NOT_NUMBERS]),
        *(("top_k", value) for value in [0, -2, 2**31, HUGE, *NOT_INTEGERS]),
        *(("sampling_seed", value) for value in [-1, 2**63, HUGE, *NOT_INTEGERS]),
        *(("max_new_tokens", value) for value in [0, -1, 2**31, HUGE, *NOT_INTEGERS]),
        *(("ignore_eos", value) for value in [0, 1, "true", []]),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused_by_name(name, bad):
    with pytest.raises(BadSetting, match=f"^{name} must be") as caught:
        parse({"max_new_tokens": 1, name: bad})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("text_temperature", -1),
        ("text_temperature", HUGE),
        ("text_top_p", 0),
        ("text_top_k", 0),
        ("return_codes", 1),
        ("mode", "clone"),
        ("mode", ["voice_clone"]),
        ("mode", ""),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_bad_custom_value_is_refused_by_name(name, bad):
    with pytest.raises(BadSetting, match=f"{name} must be"):
        parse({"custom_params": {name: bad}})


@pytest.mark.parametrize("custom", [[], "mode", 1])
def test_custom_params_of_another_type_are_refused(custom):
    with pytest.raises(BadSetting, match="custom_params must be an object"):
        parse({"custom_params": custom})


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_known(mode):
    assert parse({"custom_params": {"mode": mode}}).mode == mode


def test_a_request_that_ignores_its_end_needs_a_length():
    assert parse({"ignore_eos": True, "max_new_tokens": 2**31 - 1}).max_frames == 2**31 - 1
    with pytest.raises(BadSetting, match="ignore_eos needs max_new_tokens"):
        parse({"ignore_eos": True})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*WITHOUT_EFFECT, *UNSUPPORTED, "temperature", "top_k", "sampling_seed", "max_new_tokens"])
custom_names = st.sampled_from(["mode", "return_codes", "text_temperature", "text_top_p", "text_top_k"])


@given(
    st.dictionaries(names | st.text(max_size=8), json_values, max_size=4),
    st.none() | st.dictionaries(custom_names | st.text(max_size=8), json_values, max_size=3),
)
def test_any_json_gives_options_or_a_refusal(params, custom):
    try:
        options = parse(params | {"custom_params": custom})
    except BadRequest:
        return
    assert options.max_frames is None or options.max_frames >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("chunk_frames", n) for n in (1, 2, 32, 512)), *(("first_frames", n) for n in (1, 2, 32))],
)
def test_the_size_of_chunks_is_honoured(value, name):
    assert getattr(parse({"custom_params": {name: value}}), name) == value


@pytest.mark.parametrize(("name", "most"), [("chunk_frames", 512), ("first_frames", 32)])
@pytest.mark.parametrize("value", [0, -1, 513, *NOT_INTEGERS])
def test_no_other_size_of_chunks_is_taken(value, name, most):
    with pytest.raises(BadSetting, match=rf"{name} must be an integer in \[1, {most}\]"):
        parse({"custom_params": {name: value}})


def test_chunks_grow_from_4_to_32_frames_unless_told():
    options = [parse({}), parse({"custom_params": {"chunk_frames": None, "first_frames": None}})]
    assert [(o.first_frames, o.chunk_frames) for o in options] == [(4, 32)] * 2


@pytest.mark.parametrize(("chunk_frames", "first_frames", "honoured"), [(1, None, 1), (3, None, 3), (2, 9, 9)])
def test_the_first_chunk_is_no_longer_than_the_others_unless_told(chunk_frames, first_frames, honoured):
    custom = {"chunk_frames": chunk_frames, "first_frames": first_frames}
    assert parse({"custom_params": custom}).first_frames == honoured
