"""A server that answers `/generate` with a tone, slowly, and says who it is: to be put behind a proxy, and killed.

    python stub_server.py NAME PORT HELD

A text that holds `full` gets a 429, one with `leaving` and this name a 503. An answer takes a second, which a stream
spends behind its first chunk; while the file HELD exists, no answer goes on.
"""

import json
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fake_speech_server import speech_answer, speech_events

CHUNKS = 12
ANSWER_SECONDS = 1.0
RETRY_AFTER = "7"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""
    held = Path()

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        leaves = "leaving" in body["text"] and self.name in body["text"]
        if "full" in body["text"] or leaves:
            self._answer(429 if "full" in body["text"] else 503, {"error": {"message": f"{self.name} is busy"}})
        elif body.get("stream"):
            with suppress(ConnectionError):
                self._stream()
        else:
            self._wait()
            with suppress(ConnectionError):
                self._answer(200, speech_answer(n_frames=CHUNKS))

    def _answer(self, status: int, answer: dict) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("X-Server", self.name)
        if status != 200:
            self.send_header("Retry-After", RETRY_AFTER)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("X-Server", self.name)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i, event in enumerate([*speech_events([1] * CHUNKS), b""]):
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            self.wfile.flush()
            if i == 0:
                self._wait()

    def _wait(self) -> None:
        time.sleep(ANSWER_SECONDS)
        while self.held.exists():
            time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    Handler.name, Handler.held = sys.argv[1], Path(sys.argv[3])
    Server(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
