"""Whether a template is the one that a model directory's own `processing_*.py` writes, as far as that can be read.

The file is parsed and not run, so what is compared are the lines of its template: which fields there are, in which
order, between which marks. What its code puts into them, such as what stands for a speaker without a reference, is not.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from sglang_moss.request.template import Template

from .errors import DataError

_BEGIN, _END = "<user_inst>", "</user_inst>"
_LABEL = re.compile(r"^- ([^:\n]+):$", re.MULTILINE)


def template_difference(model_path: Path, template: Template) -> str | None:
    """What a model directory's own template has otherwise, in one clause; None: nothing.

    Raises:
        DataError: there is no template to compare with.
    """
    ours = _LABEL.findall(template.user_turn({}, None))
    for path, text in _templates(model_path):
        theirs = _LABEL.findall(text)
        if theirs != ours:
            return f"{path} has the fields {', '.join(theirs)}, the template {template.name} has {', '.join(ours)}"
        if not text.strip().startswith(_BEGIN) or not text.strip().endswith(_END):
            return f"{path} has words around {_BEGIN} and {_END}, which the template {template.name} has not"
        return None
    raise DataError(
        f"{model_path} has no processing_*.py with a template in it: there is nothing to check --template against"
    )


def _templates(model_path: Path) -> Iterator[tuple[Path, str]]:
    """Strings with a whole user turn in the directory's own processors."""
    for path in sorted(model_path.glob("processing_*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # ValueError: a NUL
            continue
        for node in ast.walk(tree):
            text = _text_of(node)
            if _BEGIN in text and _END in text and _LABEL.search(text):
                yield path, text


def _text_of(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text_of(part) if isinstance(part, ast.Constant) else "{}" for part in parts)
    return ""
