"""The template of a model directory is read without running a line of it."""

import pytest

from sglang_moss.request.template import TEMPLATES, TTS, TTSD
from sglang_moss.training.data.errors import DataError
from sglang_moss.training.data.template_check import template_difference

pytestmark = pytest.mark.wide

FIELDS = ["Reference(s)", "Instruction", "Tokens", "Quality", "Sound Event", "Ambient Sound", "Language", "Text"]


def processor(fields: list[str], form: str) -> str:
    lines = "".join(f"- {field}:\n{{x{i}}}\n" for i, field in enumerate(fields))
    body = f"<user_inst>\n{lines}</user_inst>"
    written = {
        "text": f'    template = """{body}"""\n',
        "f-string": f'    return f"""{body}"""\n',
        "pieces": "    return (" + " ".join(f"f{line!r}" for line in body.splitlines(keepends=True)) + ")\n",
    }[form]
    return f"raise SystemExit('this must not run')\ndef build():\n    '''Writes <user_inst>.'''\n{written}"


@pytest.mark.parametrize("form", ["text", "f-string", "pieces"])
def test_the_fields_are_compared_in_their_order(tmp_path, form):
    path = tmp_path / "processing_moss_tts.py"
    path.write_text(processor(FIELDS, form))
    assert template_difference(tmp_path, TTS) is None
    assert "Language, Text, the template ttsd has" in (template_difference(tmp_path, TTSD) or "")
    path.write_text(processor([*FIELDS[:-1], "Scene", "Text"], form))
    assert template_difference(tmp_path, TTSD) is None
    assert template_difference(tmp_path, TTS) is not None
    path.write_text(processor(FIELDS[::-1], form))
    assert all(template_difference(tmp_path, template) for template in TEMPLATES.values())


def test_words_around_the_turn_are_a_difference(tmp_path):
    path = tmp_path / "processing_moss_tts.py"
    path.write_text(processor(FIELDS, "text").replace('"""<user_inst>', '"""Speak.<user_inst>'))
    assert "has words around" in (template_difference(tmp_path, TTS) or "")


@pytest.mark.parametrize("source", [None, "x = 1\n", "def broken(:\n", "'<user_inst>'\n"])
def test_where_there_is_nothing_to_compare_with_it_says_so(tmp_path, source):
    if source is not None:
        (tmp_path / "processing_moss_tts.py").write_text(source)
    with pytest.raises(DataError, match="nothing to check --template against"):
        template_difference(tmp_path, TTS)
