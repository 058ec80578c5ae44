"""Text files of people: what is read, and what is refused by its name."""

from pathlib import Path

import pytest

from sglang_moss.clients.text_file import read_text


@pytest.mark.parametrize("data", [b"Hi\nHo", b"\xef\xbb\xbfHi\r\nHo", b"Hi\rHo"])
def test_marks_of_byte_order_and_line_ends_do_not_matter(tmp_path: Path, data: bytes):
    path = tmp_path / "script.txt"
    path.write_bytes(data)
    assert read_text(path) == "Hi\nHo"


REFUSED = {
    "UTF-16": "Hi".encode("utf-16"),
    "another encoding at byte 1": "Jürgen".encode("latin-1"),
    "office program": b"PK\x03\x04rest",
    "got a document": b"%PDF-1.7",
    "binary data": b"RIFF\0\0",
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_is_no_text_is_refused_with_its_name_and_what_to_do(tmp_path: Path, problem: str):
    path = tmp_path / "script.docx"
    path.write_bytes(REFUSED[problem])
    with pytest.raises(ValueError, match=f"script.docx: expected text.*{problem}.*; save it as plain text in UTF-8"):
        read_text(path)
