"""Documents that talks are about, and a web server that has them."""

import functools
import http.server
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pypdf
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

PAGE = """<html><head><title>Foxes</title><script>alert("no")</script></head><body><nav>Home | About</nav>
<article><h1>Foxes</h1><p>Foxes are clever animals that live in woods, and by now in most of our cities as well.</p>
<p>They eat nearly everything: mice, berries, worms, and what people leave behind on a warm evening in a park.</p>
</article><footer>Cookies</footer></body></html>"""


def pdf(text: str) -> bytes:
    """A PDF of one page with a line of text."""
    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(300, 300)
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    fonts = DictionaryObject({NameObject("/F1"): DictionaryObject(_names(font))})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    content = DecodedStreamObject()
    content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
    page[NameObject("/Contents")] = writer._add_object(content)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def _names(names: dict[str, str]) -> dict[Any, Any]:
    return {NameObject(key): NameObject(value) for key, value in names.items()}


@contextmanager
def web(folder: Path, **headers: str) -> Iterator[str]:
    """Address of an HTTP server of the files in `folder`; it redirects from `/to/...`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to") if self.path != "/to/itself" else self.path)
                self.send_header("Connection", "close")
                self.end_headers()
                with suppress(ConnectionError):  # nobody reads it to its end
                    for _ in range(200):
                        self.wfile.write(bytes(1_000_000))
            else:
                super().do_GET()

        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            super().end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
