"""A `/generate` body on arrival, on SGLang's own request class: what it becomes, and what is refused."""

import contextlib
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sglang.srt.managers.io_struct import GenerateReqInput

from sglang_moss.errors import BadRequest
from sglang_moss.generate_body import HEALTH_CHECK_RID, give_priority, parse, prepare, shown_ids
from sglang_moss.request.settings import RequestOptions

pytestmark = pytest.mark.wide

RID = "a-client-s-own-request-id"


def arrive(**fields: Any) -> list[Any]:
    """The single requests that SGLang makes of a body once `prepare` has seen it."""
    request: Any = GenerateReqInput(**fields)
    prepare(request)
    request.normalize_batch_and_arguments()
    singles = [request] if request.is_single else [request[i] for i in range(request.batch_size)]
    assert request.is_single or (request.parallel_sample_num, len(request.rid)) == (1, request.batch_size)
    return singles


def seeds_of(singles: list[Any]) -> list[int]:
    return [RequestOptions.parse(single.sampling_params).seed for single in singles]


@pytest.mark.parametrize(("sent", "arrived"), [(None, None), ("a", ["a"]), ([], []), (["a", "b"], ["a", "b"])])
def test_references_of_one_text_become_a_list(sent, arrived):
    [single] = arrive(text="hi", audio_data=sent, sampling_params={"temperature": 0.5})
    assert (single.text, single.audio_data) == ("hi", arrived)
    assert single.sampling_params["temperature"] == 0.5


@pytest.mark.parametrize("settings", [None, {}, [{}], {"n": None}, {"n": 1}])
def test_one_sample_is_what_a_request_gets_unless_it_asks_for_more(settings):
    [single] = arrive(text="hi", sampling_params=settings)
    RequestOptions.parse(single.sampling_params)


@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        (None, [None, None]),
        ([], [None, None]),
        (["a", "b"], [["a"], ["b"]]),
        ([["a"], ["b", "c"]], [["a"], ["b", "c"]]),
        ([None, ["a"]], [None, ["a"]]),
        ([[], ["a"]], [[], ["a"]]),
        ([[], []], [[], []]),
        ([None, None], [None, None]),
    ],
)
def test_each_text_of_a_batch_gets_its_own_references(sent, arrived):
    singles = arrive(text=["one", "two"], audio_data=sent)
    assert [single.text for single in singles] == ["one", "two"]
    assert [single.audio_data for single in singles] == arrived


@pytest.mark.parametrize("sent", ["a", ["a"], ["a", "b", "c"], [["a", "b"]], {"0": "a"}, b"bytes"])
def test_references_that_cannot_be_told_apart_by_text_are_refused(sent):
    with pytest.raises(BadRequest, match="one entry a text: expected 2, got"):
        arrive(text=["one", "two"], audio_data=sent)


def test_settings_of_a_batch_are_one_object_for_all_or_one_each():
    shared = {"temperature": 0.5}
    singles = arrive(text=["one", "two"], sampling_params=shared)
    assert [s.sampling_params["temperature"] for s in singles] == [0.5, 0.5]
    assert singles[0].sampling_params is not singles[1].sampling_params
    assert shared == {"temperature": 0.5}
    each = arrive(text=["one", "two"], sampling_params=[{"temperature": 0.1}, {"temperature": 0.2}])
    assert [s.sampling_params["temperature"] for s in each] == [0.1, 0.2]


@pytest.mark.parametrize("settings", [[{}], [{}, {}, {}], [{}, None], [], "x", 3])
def test_settings_that_do_not_fit_the_batch_are_refused(settings):
    with pytest.raises(BadRequest, match="sampling_params must be an object, or a list of 2"):
        arrive(text=["one", "two"], sampling_params=settings)


@pytest.mark.parametrize("text", ["hi", ["one", "two", "three"]])
@pytest.mark.parametrize("n", [2, 5])
def test_samples_become_requests_of_their_own_with_seeds_that_follow_on(text, n):
    references = ["a", "b"] if text == "hi" else [["a"], [], ["b", "c"]]
    singles = arrive(text=text, audio_data=references, sampling_params={"n": n, "sampling_seed": 7}, rid=RID)
    texts = [text] if text == "hi" else text
    assert [s.text for s in singles] == [t for t in texts for _ in range(n)]
    expected = [references] if text == "hi" else references
    assert [s.audio_data for s in singles] == [r for r in expected for _ in range(n)]
    assert seeds_of(singles) == [7 + i for _ in texts for i in range(n)]
    assert len({s.rid for s in singles}) == len(singles)
    assert not any(RID in s.rid for s in singles)


def test_seeds_wrap_at_their_limit():
    singles = arrive(text="hi", sampling_params={"n": 3, "sampling_seed": 2**63 - 1})
    assert seeds_of(singles) == [2**63 - 1, 0, 1]


@pytest.mark.parametrize("seed", [None, 0])
def test_samples_never_share_a_seed(seed):
    assert len(set(seeds_of(arrive(text="hi", sampling_params={"n": 64, "sampling_seed": seed})))) == 64


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("seed", ["7", 1.5, True, -1, 2**63, [7]])
def test_a_bad_seed_is_refused_for_any_number_of_samples(n, seed):
    with pytest.raises(BadRequest, match="sampling_seed must be"):
        seeds_of(arrive(text="hi", sampling_params={"n": n, "sampling_seed": seed}))


@pytest.mark.parametrize("n", [0, -1, 65, 2.0, "2", True, False, "", [2], [], {}, 10**400])
def test_n_must_be_a_count(n):
    with pytest.raises(BadRequest, match="n must be") as caught:
        arrive(text="hi", sampling_params={"n": n})
    assert len(str(caught.value)) < 200


def test_texts_times_n_is_bounded():
    assert len(arrive(text=["hi"] * 16, sampling_params={"n": 4})) == 64
    for texts, n in ((17, 4), (65, 1)):
        with pytest.raises(BadRequest, match="texts times n at most 64"):
            arrive(text=["hi"] * texts, sampling_params={"n": n})


def test_n_is_the_same_for_a_batch():
    assert len(arrive(text=["one", "two"], sampling_params=[{"n": 2}, {"n": 2}])) == 4
    for settings in ([{"n": 2}, {}], [{"n": 1}, {"n": 3}]):
        with pytest.raises(BadRequest, match="same for every text"):
            arrive(text=["one", "two"], sampling_params=settings)


@pytest.mark.parametrize("text", [None, [], [None], ["hi", None], [["hi"]], 3, {"text": "hi"}])
def test_texts_that_are_no_strings_are_refused(text):
    with pytest.raises(BadRequest, match="text"):
        arrive(text=text)


@pytest.mark.parametrize(
    "fields",
    [
        {"input_ids": [1, 2]},
        {"input_ids": [1, 2], "text": None},
        {"input_embeds": [[0.5]]},
        {"image_data": "a"},
        {"video_data": ["a"]},
        {"return_logprob": True},
        {"return_logprob": [False, True]},
        {"return_hidden_states": True},
        {"session_params": {"id": "x"}},
        {"session_id": "x"},
        {"lora_path": "x"},
        {"custom_logit_processor": "x"},
        {"http_worker_ipc": "ipc:///x"},
        {"bootstrap_host": "host"},
        {"routed_dp_rank": 1},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_what_would_reach_past_our_checks_is_refused_by_name(fields):
    [name] = set(fields) - {"text"}
    with pytest.raises(BadRequest, match=f"{name} is not supported"):
        prepare(GenerateReqInput(**({"text": "hi"} | fields)))


def names_of(**fields: Any) -> tuple[list[str], list[str]]:
    """Ids that SGLang gets, and what the client calls them."""
    request: Any = GenerateReqInput(**fields)
    prepare(request)
    request.normalize_batch_and_arguments()
    shown = shown_ids(request)
    return list(shown), list(shown.values())


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"text": "hi", "rid": "a"}, ["a"]),
        ({"text": "hi", "rid": f"{HEALTH_CHECK_RID}_1"}, [f"{HEALTH_CHECK_RID}_1"]),
        ({"text": "hi", "rid": "a", "sampling_params": {"n": 2}}, ["a_0", "a_1"]),
        ({"text": ["one"], "rid": "a"}, ["a_0"]),
        ({"text": ["one", "two"], "rid": ["a", "a"]}, ["a", "a"]),
        ({"text": ["one", "two"], "rid": list("abcd"), "sampling_params": {"n": 2}}, list("abcd")),
    ],
)
def test_a_clients_id_is_shown_and_never_sglangs_key(fields, shown):
    inner, found = names_of(**fields)
    assert found == shown
    assert len(set(inner)) == len(inner)
    assert all(len(rid) >= 32 for rid in inner), "no id begins with another"
    assert not set(inner) & set(shown)
    assert names_of(**fields)[0] != inner, "two requests under one id are two requests"


@pytest.mark.parametrize("rid", ["0", 3, {}, ["0", 1], "x" * 999])
@pytest.mark.parametrize("fields", [{"text": []}, {"text": "hi", "return_logprob": True}, {"text": "hi"}])
def test_a_body_that_is_refused_leaves_no_id_by_which_others_could_be_aborted(rid, fields):
    request: Any = GenerateReqInput(rid=rid, **fields)
    with contextlib.suppress(BadRequest):
        prepare(request)
    assert request.rid is None
    assert shown_ids(request) == {}


def test_without_an_id_sglangs_own_is_shown():
    inner, shown = names_of(text=["one", "two"])
    assert inner == shown


@pytest.mark.parametrize("rid", ["", "x" * 129, "naïve", "line\n", ["a"], ["a", "b", "c"], ["a", ""], ["a", 1], 3, {}])
def test_an_id_that_is_none_is_refused(rid):
    with pytest.raises(BadRequest, match="rid"):
        arrive(text=["one", "two"], rid=rid)


@pytest.mark.parametrize("name", sorted(field.name for field in dataclasses.fields(GenerateReqInput)))
def test_every_field_of_sglangs_is_understood_or_refused_by_name(name):
    body = {"text": "hi", name: "an odd value"}
    if name in ("text", "audio_data", "rid", "extra_key"):
        parse(body)
        return
    with pytest.raises(BadRequest, match=name):
        prepare(parse(body))
    if name not in ("sampling_params", "stream", "priority"):
        prepare(parse({"text": "hi", name: None}))  # what a client sends that sends every field


@pytest.mark.parametrize("body", [None, [], "text", 3, True])
def test_a_body_is_an_object(body):
    with pytest.raises(BadRequest, match="must be a JSON object"):
        parse(body)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"audio_dat": ["a"]}, "audio_dat"),
        ({"voice": "x", "Text": "hi"}, "voice, Text"),
        ({"custom_labels": {"x": "y"}}, "custom_labels"),
        ({"received_time": float("nan")}, "received_time"),
        ({"stream": "yes"}, "stream must be true or false"),
        ({"stream": 1}, "stream must be true or false"),
        ({"priority": 1.5}, "priority must be an integer"),
        ({"priority": 2**31}, "priority must be an integer"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(fields, named):
    with pytest.raises(BadRequest, match=named):
        parse({"text": "hi", **fields})


def test_what_is_understood_is_taken():
    body = {"text": "hi", "audio_data": ["a"], "sampling_params": {"top_k": 3}, "stream": True, "rid": "r"}
    request = parse({**body, "priority": -3, "extra_key": "tenant", "return_logprob": False, "image_data": []})
    assert {name: getattr(request, name) for name in body} == body
    assert (request.priority, request.extra_key) == (-3, "tenant")


def test_the_servers_own_health_check_is_left_alone():
    one_token = {"max_new_tokens": 1, "temperature": 0.0}
    request = GenerateReqInput(rid=f"{HEALTH_CHECK_RID}_0f", input_ids=[0], sampling_params=one_token)
    prepare(request)
    assert (request.text, request.input_ids, request.sampling_params) == (None, [0], one_token)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "hi", "return_logprob": True},
        {"text": "hi", "custom_logit_processor": "x"},
        {"input_ids": [0], "return_logprob": True},
        {"input_ids": [0] * 9, "sampling_params": {"max_new_tokens": 10_000}},
    ],
)
def test_a_client_that_calls_itself_a_health_check_is_checked_like_any_other(fields):
    with pytest.raises(BadRequest):
        prepare(GenerateReqInput(rid=f"{HEALTH_CHECK_RID}_{RID}", **fields))


@given(
    text=st.sampled_from(["hi", ["one"], ["one", "two"]]),
    n=st.integers(1, 3),
    seed=st.none() | st.integers(0, 2**63 - 1),
)
def test_preparing_twice_changes_nothing_more(text, n, seed):
    request = GenerateReqInput(text=text, sampling_params={"n": n, "sampling_seed": seed})
    prepare(request)
    once = (request.text, request.audio_data, request.sampling_params)
    prepare(request)
    assert (request.text, request.audio_data, request.sampling_params) == once


@pytest.mark.parametrize(
    ("enabled", "default", "low_first", "named", "of_stream", "of_whole"),
    [
        (True, None, False, None, 1, 0),
        (True, None, True, None, 0, 1),  # the lower ones go first
        (True, None, False, 7, 7, 7),
        (True, 3, False, None, None, None),  # SGLang gives its own
        (False, None, False, None, None, None),
    ],
)
def test_streams_are_admitted_first_where_there_are_priorities_and_nobody_names_one(
    enabled: bool, default: int | None, low_first: bool, named: int | None, of_stream: int | None, of_whole: int | None
):
    args = SimpleNamespace(
        enable_priority_scheduling=enabled, default_priority_value=default, schedule_low_priority_values_first=low_first
    )
    for stream, expected in ((True, of_stream), (False, of_whole)):
        request = GenerateReqInput(text="[S1] Hi.", stream=stream, priority=named)
        give_priority(request, args)
        assert request.priority == expected
