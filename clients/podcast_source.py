"""What a podcast is about: a web page, a PDF or a text file, to plain text.

Needs the extra `podcast`. The source is not trusted: it is bounded in bytes and in characters, and nothing in it is
followed or run.
"""

import io
from contextlib import closing
from pathlib import Path

import httpx

from .text_file import text_of

MAX_BYTES = 20_000_000
MAX_CHARS = 200_000  # a book of 100 pages; most language models take no more
_TIMEOUT_S = 60.0
_MAX_REDIRECTS = 5
HTML_SUFFIXES = (".html", ".htm", ".xhtml")
BROWSER = {
    "User-Agent": "Mozilla/5.0 (compatible; moss-ttsd)",
    "Accept": "text/html,application/pdf,text/*;q=0.9",
    "Accept-Encoding": "identity",  # a compressed body has no bound that is known before it unfolds
}


class UnusableSource(ValueError):  # noqa: N818 (named for what it is)
    """The source cannot be had, or holds no text."""


def read_source(source: str) -> str:
    """The text of a source: at most `MAX_CHARS` characters, from its beginning.

    Args:
        source: an http(s) URL, or the path of a PDF, HTML, Markdown or text file.
    Raises:
        UnusableSource: not there, too large, or without text that can be read.
        OSError: the file cannot be read.
    """
    if source.lower().startswith(("http://", "https://")):
        data, is_html = _download(source)
    else:
        path = Path(source)
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(source)
        data, is_html = path.read_bytes(), path.suffix.lower() in HTML_SUFFIXES
    return text_of_document(data, is_html, source)


def text_of_document(data: bytes, is_html: bool, name: str) -> str:
    """The text of a PDF, a page or a text file: at most `MAX_CHARS` characters, from its beginning.

    Args:
        is_html: whether it is a page, unless it is a PDF.
        name: for sentences.
    Raises:
        UnusableSource: it holds no text that can be read.
        ModuleNotFoundError: the extra `podcast` is not installed.
    """
    if data.startswith(b"%PDF-"):
        text = _text_of_pdf(data)
    elif is_html:
        text = _text_of_html(data)
    else:
        try:
            text = text_of(data, name)
        except ValueError as error:
            raise UnusableSource(f"{error}, or name a PDF or HTML") from error
    text = text.strip()
    if not text:
        raise UnusableSource(f"{name} holds no text; a scanned PDF or a page made by scripts has none to read")
    return text[:MAX_CHARS]


def _download(url: str) -> tuple[bytes, bool]:
    """The body behind a URL, and whether it is HTML."""
    try:
        with httpx.Client(timeout=_TIMEOUT_S, headers=BROWSER) as client:
            request = client.build_request("GET", url)
            # httpx, were it to follow redirects itself, would read the body of each whole, however large.
            for _ in range(1 + _MAX_REDIRECTS):
                with closing(client.send(request, stream=True)) as response:
                    if response.next_request is None:
                        response.raise_for_status()
                        return _body(response, url), "html" in response.headers.get("Content-Type", "text/html")
                    request = response.next_request
        raise UnusableSource(f"{url}: more than {_MAX_REDIRECTS} redirects")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnusableSource(f"{url}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def _body(response: httpx.Response, url: str) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise UnusableSource(
            f"{url}: the server insists on Content-Encoding {encoding[:40]!r}; download it by other means"
        )
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > MAX_BYTES:
            raise _too_large(url)
    return bytes(data)


def _text_of_html(data: bytes) -> str:
    import trafilatura

    return trafilatura.extract(data, output_format="txt", include_comments=False) or ""


def _text_of_pdf(data: bytes) -> str:
    import pypdf

    text: list[str] = []
    n_chars = 0
    try:
        for page in pypdf.PdfReader(io.BytesIO(data)).pages:
            text.append(page.extract_text())
            n_chars += len(text[-1])
            if n_chars > MAX_CHARS:
                break
    except Exception as error:  # a damaged file trips pypdf in more ways than it has errors for
        raise UnusableSource(f"the PDF cannot be read: {error or type(error).__name__}") from error
    return "\n".join(text)


def _too_large(source: str) -> UnusableSource:
    return UnusableSource(f"{source}: a source has at most {MAX_BYTES} bytes; cut it")
