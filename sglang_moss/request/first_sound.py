"""When the first sound of a stream passed each place on its way, told where a client asks for `timings`.

Marks are seconds of CLOCK_MONOTONIC, which all processes of a machine share and both `time.monotonic` and
`time.perf_counter` read on Linux. Those of the HTTP process wait there by request id, those of the scheduler process
grow on the request (`SpeechProgress.marks`) and travel in front of the first chunk (`decode/wire.py`).
"""

import time

# In the order in which they are passed; each says what has just come to its end.
MARKS = (
    "received",  # the head of the HTTP request is here
    "read",  # its body too, and parsed
    "checked",  # settings and script
    "references",  # their codes are known, or encoded
    "prompt",  # its rows are made
    "scheduler",  # the request is in the scheduler's queue
    "prefill",  # it has left the queue: its first rows are being read
    "first_row",  # the prompt is read, and the first row drawn and accepted
    "frames",  # the row is accepted that makes the last frame of the first event whole
    "codec",  # the codec's thread has come to it: the step begins that decodes this frame
    "decoded",  # its samples are here
    "left",  # the scheduler's process sends them
    "answered",  # the HTTP process hands the event to the connection
)


class FirstSoundMarks:
    """Marks of the HTTP process, of requests whose clients asked for them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._marks: dict[str, dict[str, float]] = {}  # by request id

    def __len__(self) -> int:
        return len(self._marks)

    def keep(self, rid: str, marks: dict[str, float]) -> None:
        """Marks up to the prompt; `told` takes them out again."""
        self._marks[rid] = marks

    def told(self, rid: str, later: dict[str, float]) -> dict[str, float]:
        """`meta_info.timings`: all of `MARKS`, with those of the scheduler process, answered now."""
        marks = {**self._marks.pop(rid, {}), **later, "answered": time.monotonic()}
        return {name: marks[name] for name in MARKS if name in marks}

    def forget(self, rid: str) -> None:
        """This request is over, however it ended."""
        self._marks.pop(rid, None)
