"""SGLang in which one function is there as ever and is no longer called: a release that goes round a hook.

On PYTHONPATH, with PASSED_BY=MODULE:OWNER.NAME or MODULE:NAME: every caller in SGLang calls a second name instead,
which is bound to the function before anybody can hook the first.
"""

import os
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType

MODULE, _, PATH = os.environ["PASSED_BY"].partition(":")
OWNER, _, NAME = PATH.rpartition(".")
OTHER = f"{NAME}_by_another_name"


class Loader(SourceFileLoader):
    """Compiles a module from its source, altered."""

    def get_code(self, fullname: str) -> CodeType:
        text = self.get_data(self.path).decode()
        called = rf"(?<=\.){NAME}(?=\()" if OWNER else rf"(?<!def )\b{NAME}(?=\()"
        text = re.sub(called, OTHER, text)
        if fullname == MODULE:
            dot = f"{OWNER}." if OWNER else ""
            text += f"\n{dot}{OTHER} = {dot}{NAME}\n"
        return compile(text, self.path, "exec", dont_inherit=True)


class Finder:
    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        if not name.startswith("sglang."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, Finder())
