"""A `/generate` body on arrival: refuse what cannot work, and spread `n` samples over requests of their own.

SGLang shares one sampling dictionary, one seed and the first reference between the samples of a request, so each sample
becomes an entry of a batch here, before SGLang looks at it.
"""

import dataclasses
from typing import Any

from sglang_moss.errors import BadRequest, BadSetting, BadText
from sglang_moss.request.settings import SEED_LIMIT

HEALTH_CHECK_RID = "HEALTH_CHECK"
_MIN_RID_CHARS = 16
_MAX_SAMPLES = 64  # texts times n
_MAX_RID_CHARS = 128
_MAX_TEXT_CHARS = 400_000  # all texts times n; a context of 40,960 rows holds about 200,000 letters of English
# The fields of SGLang's request that we honour. The others have no meaning here, or would reach past our checks.
_TAKEN = frozenset(
    (
        "rid",
        "text",
        "audio_data",
        "sampling_params",
        "stream",
        "priority",
        "extra_key",
        "routing_key",
        "no_logs",
        "log_metrics",
        "custom_labels",
        "received_time",
        "external_trace_header",
    )
)


def prepare(request: Any) -> None:
    """Check a `GenerateReqInput` as a whole and rewrite it in place: texts, references, settings and seeds one by one.

    Raises:
        BadRequest: HTTP 400.
    """
    is_health_check = _is_health_check(request)
    for field in dataclasses.fields(request):
        value, unset = getattr(request, field.name), _default(field)
        if field.name in _TAKEN or value == unset or (is_health_check and field.name == "input_ids"):
            continue
        if value:
            raise BadRequest(f"{field.name} is not supported by this model; leave it out, and use /generate")
        setattr(request, field.name, unset)  # an empty list or the like
    if is_health_check:
        request.sampling_params = {"max_new_tokens": 1, "temperature": 0.0}
        return
    is_batch = isinstance(request.text, list)
    texts = request.text if is_batch else [request.text]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequest("text must be a string, or a list of one or more strings")
    if not isinstance(request.extra_key, str | None):
        raise BadRequest("extra_key must be one string")
    references = _references(request.audio_data, len(texts), is_batch)
    settings = _settings(request.sampling_params, len(texts))
    n = _n_samples(settings)
    _check_texts(texts, n)
    _check_ids(request.rid, may_be_list=is_batch and n == 1)
    if not is_batch and n == 1:
        request.audio_data = references[0]
        request.sampling_params = {**settings[0], "n": 1}
        return
    request.text = [text for text in texts for _ in range(n)]
    request.audio_data = [r for r in references for _ in range(n)]
    request.sampling_params = [sample for s in settings for sample in _samples(s, n)]


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
            f"text: at most {_MAX_TEXT_CHARS} characters fit one call and its context; send less, or in parts"
        )
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise BadText("text: expected Unicode, got half of a surrogate pair") from None


def _check_ids(rid: str | list[str] | None, may_be_list: bool) -> None:
    if isinstance(rid, list) and not may_be_list:
        raise BadRequest("rid may be a list only where text is one and n is 1")
    for one in rid if isinstance(rid, list) else [] if rid is None else [rid]:
        if not (one.isascii() and one.isprintable()) or len(one) > _MAX_RID_CHARS:
            raise BadRequest(f"rid must be printable ASCII of at most {_MAX_RID_CHARS} characters")
        if len(one) < _MIN_RID_CHARS:
            # SGLang aborts every request whose id begins with that of a client that has gone.
            raise BadRequest(f"rid needs at least {_MIN_RID_CHARS} characters, or leave it out")
        if one.startswith(HEALTH_CHECK_RID):  # SGLang drops these while it is busy
            raise BadRequest(f"rid may not begin with {HEALTH_CHECK_RID}")


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


def _samples(settings: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """n copies that differ in their seed: the given one and those that follow it, or random ones."""
    seed = settings.get("sampling_seed")
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < SEED_LIMIT:
        seeds = [(seed + i) % SEED_LIMIT for i in range(n)]
    else:
        seeds = [seed] * n  # none: each draws its own; bad: each is refused
    return [{**settings, "n": 1, "sampling_seed": s} for s in seeds]
