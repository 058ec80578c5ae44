"""The template that a model directory's own `processing_*.py` writes, as far as that can be read.

The file is parsed and not run, so what is known are the lines of its template: which fields there are, in which order,
between which marks. What its code puts into them, such as what stands for a speaker without a reference, is not.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sglang_moss.request.template import Template

_BEGIN, _END = "<user_inst>", "</user_inst>"
_LABEL = re.compile(r"^- ([^:\n]+):$", re.MULTILINE)


@dataclass(frozen=True)
class TemplateFile:
    """A user turn's template in a directory.

    Attributes:
        path: the file.
        labels: of its fields, in order.
        is_bare: nothing stands around its marks.
    """

    path: Path
    labels: tuple[str, ...]
    is_bare: bool

    def difference(self, template: Template) -> str | None:
        """What it has otherwise than a template of ours, in one clause; None: nothing."""
        ours = labels_of(template)
        if self.labels != ours:
            theirs = ", ".join(self.labels)
            return f"{self.path} has the fields {theirs}, the template {template.name} has {', '.join(ours)}"
        if not self.is_bare:
            return f"{self.path} has words around {_BEGIN} and {_END}, which the template {template.name} has not"
        return None


def labels_of(template: Template) -> tuple[str, ...]:
    """Labels of a template's fields, in order."""
    return tuple(_LABEL.findall(template.user_turn({}, None)))


def find_template(model_path: Path) -> TemplateFile | None:
    """The first template in the directory's own processors; None: there is none to be read."""
    for path in sorted(model_path.glob("processing_*.py")):
        for text in _texts(path):
            if _BEGIN in text and _END in text and _LABEL.search(text):
                is_bare = text.strip().startswith(_BEGIN) and text.strip().endswith(_END)
                return TemplateFile(path, tuple(_LABEL.findall(text)), is_bare)
    return None


def _texts(path: Path) -> Iterator[str]:
    """Every string of a Python file; none where it is none."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):  # ValueError: a NUL
        return
    yield from map(_text_of, ast.walk(tree))


def _text_of(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text_of(part) if isinstance(part, ast.Constant) else "{}" for part in parts)
    return ""
