"""An HTTP server in a thread that answers `/generate` with what a test gives it, and keeps what it was asked."""

import base64
import io
import json
import math
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SAMPLE_RATE = 24_000
FRAME_SAMPLES = 1_920
END = b"data: [DONE]\n\n"


@dataclass
class FakeServer:
    """What it answers, to be set by the test, and what it has received."""

    url: str = ""
    status: int = 200
    answer: bytes = b""
    announced_bytes: int | None = None  # more than the answer has: the connection is cut in the middle of it
    reply: Callable[[Any], tuple[int, bytes, dict[str, str]]] | None = None  # status, answer and headers by body
    events: list[bytes] = field(default_factory=list)  # what a request that streams gets, piece by piece
    waits: bool = False  # do not answer, or send no event but the first, before `release` is set
    release: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def fake_speech_server() -> Iterator[FakeServer]:
    fake = FakeServer(answer=json.dumps(speech_answer(n_frames=5)).encode(), events=speech_events([1, 1, 3]))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fake.paths.append(self.path)
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            fake.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))
            fake.asked.set()
            streams = fake.status == 200 and fake.bodies[-1].get("stream")
            if streams:
                self.stream()
                return
            if fake.waits:
                fake.release.wait(60)
            status, answer, headers = fake.reply(fake.bodies[-1]) if fake.reply else (fake.status, fake.answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(fake.announced_bytes or len(answer)))
            with suppress(ConnectionError):  # the client left
                self.end_headers()
                self.wfile.write(answer)

        def stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with suppress(ConnectionError):  # the client left
                for event in fake.events:
                    self.wfile.write(event)
                    self.wfile.flush()
                    if fake.waits:
                        fake.release.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256  # connections that come at once

    server = Server(("127.0.0.1", 0), Handler)
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


def speech_events(chunk_frames: list[int], finish_reason: str = "stop") -> list[bytes]:
    """The events of a streaming answer with as many frames of a tone in each chunk, and the one that ends it."""
    events = []
    for i, n_frames in enumerate(chunk_frames, start=1):
        answer = speech_answer(n_frames, finish_reason)
        meta = answer["meta_info"]
        meta |= {"audio_frames": sum(chunk_frames[:i]), "audio_seconds": sum(chunk_frames[:i]) * 0.08}
        if i < len(chunk_frames):
            meta["finish_reason"] = None
        events.append(b"data: " + json.dumps(answer).encode() + b"\n\n")
    return [*events, END]


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


def writes(llm: FakeServer, content: str | None) -> None:
    """Have it answer as a language model with OpenAI's API that writes this."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    llm.answer = json.dumps(answer).encode()
    llm.reply = lambda _body: (llm.status, llm.answer, {"Content-Type": "application/json"})
