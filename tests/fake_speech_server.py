"""An HTTP server in a thread that answers `/generate` with what a test gives it, and keeps what it was asked."""

import base64
import io
import json
import math
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SAMPLE_RATE = 24_000
FRAME_SAMPLES = 1_920


@dataclass
class FakeServer:
    """What it answers, to be set by the test, and what it has received."""

    url: str = ""
    status: int = 200
    answer: bytes = b""
    announced_bytes: int | None = None  # more than the answer has: the connection is cut in the middle of it
    waits: bool = False  # do not answer before `release` is set
    release: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def fake_speech_server() -> Iterator[FakeServer]:
    fake = FakeServer(answer=json.dumps(speech_answer(n_frames=5)).encode())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fake.paths.append(self.path)
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            fake.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            fake.asked.set()
            if fake.waits:
                fake.release.wait(60)
            self.send_response(fake.status)
            self.send_header("Content-Length", str(fake.announced_bytes or len(fake.answer)))
            self.end_headers()
            self.wfile.write(fake.answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        fake.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def speech_answer(n_frames: int, finish_reason: str = "stop", **meta: Any) -> dict[str, Any]:
    """The server's answer with `n_frames` frames of a tone."""
    meta_info = {"audio_frames": n_frames, "finish_reason": {"type": finish_reason}, "sampling_seed": 7, **meta}
    return {"text": base64.b64encode(tone_wav(n_frames * FRAME_SAMPLES)).decode(), "meta_info": meta_info}


def tone_wav(n_samples: int) -> bytes:
    """A WAV file of 440 Hz, 16-bit mono."""
    samples = (round(8_000 * math.sin(2 * math.pi * 440 * i / SAMPLE_RATE)) for i in range(n_samples))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
    return buffer.getvalue()
