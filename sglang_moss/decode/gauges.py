"""How busy the codec is, as gauges beside SGLang's own; set from its thread, and only when a number has changed."""

from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True)
class CodecLoad:
    """Streams and jobs at one moment."""

    slots_used: int
    streams_waiting: int  # have frames to decode and no slot
    references_waiting: int  # requests whose references are to be encoded


class CodecGauges:
    """The gauges. SGLang collects them from all processes of the server; made only where it does.

    Args:
        labels: of all of them, as SGLang's own have them: `model_name`, and `dp_rank` where there are several.
        n_slots: of streams.
    """

    def __init__(self, labels: dict[str, str], n_slots: int) -> None:
        from prometheus_client import Gauge  # reads where SGLang collects when it is imported, which is set by now

        def gauge(name: str, documentation: str) -> Any:
            made = Gauge(f"moss_ttsd:{name}", documentation, list(labels), multiprocess_mode="mostrecent")
            return made.labels(**labels)

        gauge("codec_slots", "Streams that the codec can decode at a time").set(n_slots)
        self._gauges = (
            gauge("codec_slots_used", "Streams that hold a slot of the codec"),
            gauge("codec_streams_waiting", "Streams that have frames to decode and wait for a slot"),
            gauge("codec_references_waiting", "Requests whose references wait to be encoded"),
        )
        self._shown = (-1, -1, -1)
        self.show(CodecLoad(0, 0, 0))

    def show(self, load: CodecLoad) -> None:
        """Set what has changed."""
        values = astuple(load)
        if values == self._shown:
            return
        for gauge, value, shown in zip(self._gauges, values, self._shown, strict=True):
            if value != shown:
                gauge.set(value)
        self._shown = values
