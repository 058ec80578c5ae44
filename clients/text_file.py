"""Text files that people hand over: UTF-8, with or without a mark of byte order; what is none is told by name."""

import sys
from pathlib import Path

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SAVE = "save it as plain text in UTF-8"


def read_text(path: Path) -> str:
    """The text of a file, or with `-` that of standard input.

    Raises:
        ValueError: no text in UTF-8; the message names the file and says what to do.
        OSError: it cannot be read.
    """
    if str(path) == "-":
        return text_of(sys.stdin.buffer.read(), "standard input")
    return text_of(path.read_bytes(), str(path))


def text_of(data: bytes, name: str) -> str:
    """Text from the bytes of a file; line ends become one, and a mark of byte order goes.

    Raises:
        ValueError: see `check_is_text`; or it is not UTF-8.
    """
    check_is_text(data, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: expected text in UTF-8, got another encoding at byte {error.start}; {_SAVE}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_is_text(data: bytes, name: str) -> None:
    """Refuse what is no text in UTF-8 by its first bytes.

    Raises:
        ValueError: UTF-16, or a document, picture or sound.
    """
    if data.startswith(_UTF16):
        raise ValueError(f"{name}: expected text in UTF-8, got UTF-16; {_SAVE}")
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{name}: expected text, got a document of an office program or an archive; {_SAVE}")
    if data.startswith((b"%PDF-", b"{\\rtf", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{name}: expected text, got a document; {_SAVE}")
    if b"\0" in data:
        raise ValueError(f"{name}: expected text in UTF-8, got binary data; {_SAVE}")
