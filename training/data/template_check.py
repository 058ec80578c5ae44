"""Whether a template is the one that a model directory's own `processing_*.py` writes, as far as that can be read."""

from pathlib import Path

from sglang_moss.request.template import Template
from sglang_moss.request.template_file import find_template

from .errors import DataError


def template_difference(model_path: Path, template: Template) -> str | None:
    """What a model directory's own template has otherwise, in one clause; None: nothing.

    Raises:
        DataError: there is no template to compare with.
    """
    found = find_template(model_path)
    if found is None:
        raise DataError(
            f"{model_path} has no processing_*.py with a template in it: there is nothing to check --template against"
        )
    return found.difference(template)
