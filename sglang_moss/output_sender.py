"""SGLang's senders to the HTTP process: what is meant for a detokenizer goes there at once, with waiting audio."""

from collections.abc import Callable
from typing import Any

from sglang.srt.managers.io_struct import AbortReq, BatchStrOutput, BatchTokenIDOutput, wrap_as_pickle
from sglang.srt.managers.scheduler_components.output_sender import SenderWrapper

META = "speech"  # key of `customized_info` under which our part of `meta_info` travels
_SHARED_FIELDS = tuple(set(BatchStrOutput.__struct_fields__) & set(BatchTokenIDOutput.__struct_fields__))


class SpeechSender(SenderWrapper):
    """Turns messages for SGLang's detokenizer into the detokenizer's answers; drops those that only it would read."""

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self._texts: dict[str, str] = {}  # by request id, what its next message carries
        self._meta: dict[str, dict[str, Any]] = {}

    def attach(self, rid: str, text: str, meta: dict[str, Any] | None) -> None:
        """Let the next message of a request carry more text, and `meta`."""
        self._texts[rid] = self._texts.get(rid, "") + text
        if meta:
            self._meta[rid] = meta

    def detach(self, rid: str) -> None:
        """Forget what has not left."""
        self._texts.pop(rid, None)
        self._meta.pop(rid, None)

    def send_output(self, output: Any, recv_obj: Any = None) -> None:
        if not isinstance(output, BatchTokenIDOutput):
            return
        fields = {name: getattr(output, name) for name in _SHARED_FIELDS}
        rids = output.rids or ()
        fields["output_strs"] = [self._texts.pop(rid, "") for rid in rids]
        metas = [[meta] if (meta := self._meta.pop(rid, None)) else [] for rid in rids]
        if any(metas):
            fields["customized_info"] = wrap_as_pickle({META: metas})
        super().send_output(BatchStrOutput(**fields), recv_obj)


class AbortWatcher(SenderWrapper):
    """The scheduler's sender to the HTTP process; sees requests that are aborted while they wait for a slot."""

    def __init__(self, socket: Any, on_abort: Callable[[str], None]) -> None:
        super().__init__(socket)
        self._on_abort = on_abort

    def send_output(self, output: Any, recv_obj: Any = None) -> None:
        if isinstance(output, AbortReq) and output.rid is not None:
            self._on_abort(output.rid)
        super().send_output(output, recv_obj)
