"""What the server has spoken and refused, as Prometheus metrics beside SGLang's own in `/metrics`.

Counted in the HTTP process, once a request, but for the audio, which counts as it comes. Times are those of the server:
from a request's arrival until its audio has been handed to its connection.
"""

from typing import Any

from sglang_moss.request.record import BAD_REQUEST, RequestRecord

_TTFA_BUCKETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)  # seconds
_RTF_BUCKETS = (0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
_REASONS = {
    400: BAD_REQUEST,
    401: "no_key",
    403: "no_key",
    404: "not_found",
    408: "body_timeout",
    409: "conflict",
    413: "body_too_large",
    422: BAD_REQUEST,
    503: "unavailable",
}


class SpeechMetrics:
    """The metrics of one server.

    Args:
        model_name: label of all of them, as SGLang's own have.
        registry: Prometheus's own, unless given.
    """

    def __init__(self, model_name: str, registry: Any = None) -> None:
        # Reads where SGLang collects when it is imported, which is set by now.
        from prometheus_client import REGISTRY, Counter, Histogram

        registry = registry or REGISTRY

        def counter(name: str, documentation: str, *labels: str) -> Any:
            return Counter(f"moss_ttsd:{name}", documentation, ["model_name", *labels], registry=registry)

        def histogram(name: str, documentation: str, buckets: tuple[float, ...]) -> Any:
            made = Histogram(f"moss_ttsd:{name}", documentation, ["model_name"], registry=registry, buckets=buckets)
            return made.labels(model_name)

        self._model_name = model_name
        self._seconds = counter("audio_seconds", "Seconds of audio that were made").labels(model_name)
        self._frames = counter("audio_frames", "Frames of audio that were made").labels(model_name)
        self._hits = counter("reference_cache_hits", "Encodings of references that were known").labels(model_name)
        self._misses = counter("reference_cache_misses", "Encodings of references that were made").labels(model_name)
        self._requests = counter("requests", "Requests by what became of them", "route", "outcome")
        self._refusals = counter("refusals", "Requests that were not served, by reason", "reason")
        self._ttfa = histogram(
            "ttfa_seconds", "From a stream's request, upload included, to its first audio", _TTFA_BUCKETS
        )
        self._rtf = histogram("rtf", "Seconds per second of audio, at its client's pace", _RTF_BUCKETS)

    def count_audio(self, seconds: float, n_frames: int) -> None:
        """Audio has just been made."""
        self._seconds.inc(seconds)
        self._frames.inc(n_frames)

    def count_request(self, route: str, outcome: str, status: int, record: RequestRecord) -> None:
        """A request has ended."""
        self._requests.labels(self._model_name, route, outcome).inc()
        if record.refusal or status >= 400:
            self._refusals.labels(self._model_name, refusal_of(status, record)).inc()
        self._hits.inc(record.n_cached_references)
        self._misses.inc(record.n_encoded_references)
        if record.is_streamed and record.first_audio is not None:
            self._ttfa.observe(record.first_audio - record.started)
        if outcome == "ok" and record.last_audio is not None:
            self._rtf.observe((record.last_audio - record.started) / record.audio_seconds)


def refusal_of(status: int, record: RequestRecord) -> str:
    """A word for why a request was not served."""
    if record.refusal or status in _REASONS:
        return record.refusal or _REASONS[status]
    return "server_error" if status >= 500 or not status else "aborted" if status < 400 else "other"
