"""A `/generate` body on arrival: what is understood is taken, and `n` samples become requests of their own.

SGLang shares one sampling dictionary, one seed and the first reference between the samples of a request, so each sample
becomes an entry of a batch here, before SGLang looks at it.

A client's own `rid` is never SGLang's key: two requests under one id would end each other, and SGLang aborts whatever
begins with an id. SGLang gives ids of its own, and answers carry the client's (`shown_ids`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sglang.srt.managers.io_struct import GenerateReqInput

from sglang_moss.errors import BadRequest, BadSetting, BadText
from sglang_moss.request.settings import SEED_LIMIT

HEALTH_CHECK_RID = "HEALTH_CHECK"
_MAX_SAMPLES = 64  # texts times n
_MAX_RID_CHARS = 128
_MAX_TEXT_CHARS = 400_000  # all texts times n; a context of 40,960 rows holds about 200,000 letters of English
_SHOWN_FIELDS = 8
_CLIENT_RID = "client_rid"  # attribute of SGLang's request that keeps what the client called it
# The fields of SGLang's request that we honour. The others have no meaning here, or would reach past our checks.
_TAKEN = ("text", "audio_data", "sampling_params", "stream", "rid", "priority", "extra_key")
_TIMESTAMPS = "timestamps"  # of ours; an attribute of SGLang's request, then a setting of each entry
_FIELDS = {field.name: field for field in dataclasses.fields(GenerateReqInput)}


def parse(body: Any) -> GenerateReqInput:
    """A request from what JSON said.

    Raises:
        BadRequest: HTTP 400; the sentence names the field.
    """
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object with `text`, got {type(body).__name__}")
    unknown = [str(name)[:64] for name in body if name not in _FIELDS and name != _TIMESTAMPS]
    if unknown:
        known = ", ".join((*_TAKEN, _TIMESTAMPS))
        raise BadRequest(f"unknown fields: {', '.join(unknown[:_SHOWN_FIELDS])}; take them out; known are {known}")
    for name, value in body.items():
        if name not in _TAKEN and name != _TIMESTAMPS:
            _check_unused(name, value)
    taken = {name: body[name] for name in _TAKEN if body.get(name) is not None}
    if not isinstance(taken.get("stream", False), bool):
        raise BadRequest("stream must be true or false")
    priority = taken.get("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) >= 2**31:
        raise BadRequest("priority must be an integer of 32 bits")
    timestamps = body.get(_TIMESTAMPS)
    if not isinstance(timestamps, bool | None):
        raise BadRequest("timestamps must be true or false")
    request = GenerateReqInput(**taken)
    if timestamps:
        setattr(request, _TIMESTAMPS, True)
    return request


def prepare(request: Any) -> None:
    """Check a `GenerateReqInput` as a whole and rewrite it in place: texts, references, settings and seeds one by one.

    Raises:
        BadRequest: HTTP 400.
    """
    is_health_check = _is_health_check(request)
    if not is_health_check and not hasattr(request, _CLIENT_RID):
        # Before any check: what is refused is aborted by its id, and the scheduler must never see a client's.
        setattr(request, _CLIENT_RID, request.rid)
        request.rid = None
    for name, field in _FIELDS.items():
        value, unset = getattr(request, name), _default(field)
        if name in _TAKEN or value == unset or (is_health_check and name == "input_ids"):
            continue
        _check_unused(name, value)
        setattr(request, name, unset)  # an empty list or the like
    if is_health_check:
        request.sampling_params = {"max_new_tokens": 1, "temperature": 0.0}
        return
    is_batch = isinstance(request.text, list)
    texts = request.text if is_batch else [request.text]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadText("text must be a string, or a list of one or more strings")
    if not isinstance(request.extra_key, str | None):
        raise BadRequest("extra_key must be one string")
    references = _references(request.audio_data, len(texts), is_batch)
    settings = _settings(request.sampling_params, len(texts))
    if getattr(request, _TIMESTAMPS, False):
        settings = [_with_timestamps(s) for s in settings]
    n = _n_samples(settings)
    _check_texts(texts, n)
    _check_ids(getattr(request, _CLIENT_RID), len(texts) * n if is_batch or n > 1 else 0)
    if not is_batch and n == 1:
        request.audio_data = references[0]
        request.sampling_params = {**settings[0], "n": 1}
        return
    request.text = [text for text in texts for _ in range(n)]
    request.audio_data = [r for r in references for _ in range(n)]
    request.sampling_params = [sample for s in settings for sample in _samples(s, n)]


def give_priority(request: Any, server_args: Any) -> None:
    """Let streams be admitted before whole answers, on a server with priorities, where nobody has named one.

    They are one apart: less than what it takes to put a running request back into the queue, unless that was changed.
    """
    is_open = request.priority is None and server_args.default_priority_value is None
    if server_args.enable_priority_scheduling and is_open:
        request.priority = int(bool(request.stream) != server_args.schedule_low_priority_values_first)


def shown_ids(request: Any) -> dict[str, str]:
    """What the client calls each request, by the id that SGLang gave it; numbered where one id stands for several."""
    inner = request.rid if isinstance(request.rid, list) else [request.rid] if request.rid else []
    given: str | Sequence[str] | None = getattr(request, _CLIENT_RID, None)
    if given is None or not inner:
        return {rid: rid for rid in inner}
    if isinstance(given, str):
        given = [f"{given}_{i}" for i in range(len(inner))] if isinstance(request.rid, list) else [given]
    return dict(zip(inner, given, strict=True))


def _check_unused(name: str, value: Any) -> None:
    if value and value != _default(_FIELDS[name]):
        raise BadRequest(f"{name} is not supported by this model; leave it out")


def _is_health_check(request: Any) -> bool:
    """Whether this is the request that SGLang's health endpoint makes, or one that differs in nothing that matters."""
    named = isinstance(request.rid, str) and request.rid.startswith(HEALTH_CHECK_RID)
    return named and request.text is None and request.input_ids == [0]


def _default(field: dataclasses.Field) -> Any:
    return None if field.default is dataclasses.MISSING else field.default


def _check_texts(texts: list[str], n: int) -> None:
    """Refuse what SGLang's tokenizer would choke on before our processor sees it."""
    if n * sum(map(len, texts)) > _MAX_TEXT_CHARS:
        raise BadText(
            f"text: at most {_MAX_TEXT_CHARS} characters fit one call and its context; send less, or in parts",
            "context_full",
        )
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise BadText("text: expected Unicode, got half of a surrogate pair") from None


def _check_ids(rid: Any, n_entries: int) -> None:
    """
    Args:
        n_entries: of a batch; 0 for a single request.
    """
    ids = rid if isinstance(rid, list) else [] if rid is None else [rid]
    if isinstance(rid, list) and len(rid) != n_entries:
        raise BadRequest(f"rid is one string, or a list with one for each of the {n_entries} entries of a batch")
    for one in ids:
        if not isinstance(one, str) or not (one.isascii() and one.isprintable()) or not 0 < len(one) <= _MAX_RID_CHARS:
            raise BadRequest(f"rid must be printable ASCII of 1 to {_MAX_RID_CHARS} characters")


def _n_samples(settings: list[dict[str, Any]]) -> int:
    counts = [1 if s.get("n") is None else s["n"] for s in settings]
    for n in counts:
        if not isinstance(n, int) or isinstance(n, bool) or n < 1 or n * len(settings) > _MAX_SAMPLES:
            raise BadSetting(f"n must be at least 1, and texts times n at most {_MAX_SAMPLES}, got {n!r:.32}")
    if len(set(counts)) > 1:
        raise BadSetting("n must be the same for every text of a batch")
    return counts[0]


def _references(audio_data: Any, n_texts: int, is_batch: bool) -> list[list | None]:
    """For each text, its list of references; None where the request has no `audio_data` at all."""
    if not is_batch:
        return [_as_list(audio_data)]
    if audio_data is None or audio_data == []:
        return [None] * n_texts
    if not isinstance(audio_data, list) or len(audio_data) != n_texts:
        got = len(audio_data) if isinstance(audio_data, list) else f"a {type(audio_data).__name__}"
        raise BadRequest(f"audio_data of a batch is a list with one entry a text: expected {n_texts}, got {got}")
    return [_as_list(entry) for entry in audio_data]


def _as_list(entry: Any) -> list | None:
    return entry if entry is None or isinstance(entry, list) else [entry]


def _settings(sampling_params: Any, n_texts: int) -> list[dict[str, Any]]:
    """For each text, its own copy of its `sampling_params`."""
    if sampling_params is None:
        sampling_params = {}
    each = sampling_params if isinstance(sampling_params, list) else [sampling_params] * n_texts
    if len(each) != n_texts or not all(isinstance(s, dict) for s in each):
        raise BadSetting(f"sampling_params must be an object, or a list of {n_texts} objects, one a text")
    return [dict(s) for s in each]


def _with_timestamps(settings: dict[str, Any]) -> dict[str, Any]:
    custom = settings.get("custom_params")
    if not isinstance(custom, dict | None):
        return settings  # refused where its type is checked
    return {**settings, "custom_params": {**(custom or {}), _TIMESTAMPS: True}}


def _samples(settings: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """n copies that differ in their seed: the given one and those that follow it, or random ones."""
    seed = settings.get("sampling_seed")
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < SEED_LIMIT:
        seeds = [(seed + i) % SEED_LIMIT for i in range(n)]
    else:
        seeds = [seed] * n  # none: each draws its own; bad: each is refused
    return [{**settings, "n": 1, "sampling_seed": s} for s in seeds]
