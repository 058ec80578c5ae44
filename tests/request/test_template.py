"""The user turn's words under both templates."""

import pytest

from sglang_moss.request.template import FIELDS, TEMPLATES, TTS, TTSD


@pytest.mark.parametrize(
    ("template", "there", "reference"),
    [
        (TTSD, None, "[S1]: None\n[S2]: None"),
        (TTSD, (), ""),
        (TTSD, (True, False), "[S1]:\n<|Audio|>\n[S2]: None"),
        (TTSD, (False, True), "[S1]: None\n[S2]:\n<|Audio|>"),
        (TTSD, (True, True, False), "[S1]:\n<|Audio|>\n[S2]:\n<|Audio|>"),  # nobody speaks as [S3]
        (TTSD, (True,), "[S1]:\n<|Audio|>"),
        (TTSD, (False, False), "[S1]: None\n[S2]: None"),
        (TTS, None, "None"),
        (TTS, (), ""),
        (TTS, (False, True), "[S2]:\n<|Audio|>"),
        (TTS, (False, False), ""),
    ],
)
def test_speakers_without_a_reference(template, there, reference):
    turn = template.user_turn({"text": "[S2] a [S1] b"}, there)
    assert turn.startswith(f"<user_inst>\n- Reference(s):\n{reference}\n- Instruction:\nNone\n")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda template: template.name)
def test_absent_fields_are_the_word_none_and_empty_ones_are_empty(template):
    turn = template.user_turn({"text": "", "tokens": 0}, ())
    assert "- Tokens:\n0\n" in turn
    assert turn.endswith("- Text:\n\n</user_inst>")
    assert turn.count("\nNone\n") == len(FIELDS) - 2 + template.has_scene
