"""A `/generate` body on arrival: refuse what cannot work, and spread `n` samples over requests of their own.

SGLang shares one sampling dictionary, one seed and the first reference between the samples of a request, so each sample
becomes an entry of a batch here, before SGLang looks at it.
"""

import secrets
from typing import Any

from sglang_moss.errors import BadRequest, BadSetting
from sglang_moss.options import SEED_LIMIT

HEALTH_CHECK_RID = "HEALTH_CHECK"
_MIN_RID_CHARS = 16
_MAX_SAMPLES = 64  # texts times n
# Fields of SGLang's request that have no meaning here, or would reach past our checks.
_REFUSED = (
    "input_ids",
    "input_embeds",
    "image_data",
    "video_data",
    "return_logprob",
    "return_hidden_states",
    "session_params",
    "session_id",
    "lora_path",
    "custom_logit_processor",
    "positional_embed_overrides",
    "http_worker_ipc",
    "bootstrap_host",
    "routed_dp_rank",
)


def prepare(request: Any) -> None:
    """Check a `GenerateReqInput` as a whole and rewrite it in place: texts, references, settings and seeds one by one.

    Raises:
        BadRequest: HTTP 400.
    """
    rid = request.rid
    if isinstance(rid, str) and rid.startswith(HEALTH_CHECK_RID):
        return
    for name in _REFUSED:
        if getattr(request, name, None):
            raise BadRequest(f"{name} is not supported by this model; leave it out")
    if request.text is None:
        raise BadRequest("text is missing")
    if rid is not None and any(len(r) < _MIN_RID_CHARS for r in ([rid] if isinstance(rid, str) else rid)):
        # SGLang aborts every request whose id begins with that of a client that has gone.
        raise BadRequest(f"rid needs at least {_MIN_RID_CHARS} characters, or leave it out")
    is_batch = isinstance(request.text, list)
    texts = request.text if is_batch else [request.text]
    references = _references(request.audio_data, len(texts), is_batch)
    settings = _settings(request.sampling_params, len(texts))
    counts = {s.get("n") or 1 for s in settings}
    if len(counts) > 1:
        raise BadSetting("n must be the same for every text of a batch")
    n = counts.pop() if counts else 1
    if not isinstance(n, int) or isinstance(n, bool) or n < 1 or n * len(texts) > _MAX_SAMPLES:
        raise BadSetting(f"n must be at least 1, and texts times n at most {_MAX_SAMPLES}, got {n!r:.32}")
    if not is_batch and n == 1:
        request.audio_data = references[0]
        request.sampling_params = settings[0]
        return
    request.text = [text for text in texts for _ in range(n)]
    request.audio_data = [r for r in references for _ in range(n)]
    request.sampling_params = [sample for s in settings for sample in _samples(s, n)]
    if isinstance(rid, list) and n > 1:
        raise BadRequest("rid may not be a list together with n above 1")


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
    if n == 1 or not isinstance(seed, int):
        seeds = [seed if n == 1 else secrets.randbelow(SEED_LIMIT) for _ in range(n)]
    else:
        seeds = [(seed + i) % SEED_LIMIT for i in range(n)]
    return [{**settings, "n": 1, "sampling_seed": s} for s in seeds]
