"""What people say every day, by templates: a name in braces stands for any entry of its list, braces and all.

`text/everyday.txt` has the lists, a line each (entries between bars, or where there is none between blanks), an empty
line, and the templates.
"""

import random
import re
from pathlib import Path

_SLOT = re.compile(r"{(\w+)}")
_LISTS, _, _TEMPLATES = (Path(__file__).parent / "text" / "everyday.txt").read_text(encoding="utf-8").partition("\n\n")


def _entries(line: str) -> tuple[str, list[str]]:
    name, _, entries = line.partition(": ")
    return name, [entry.strip() for entry in entries.split("|")] if "|" in entries else entries.split()


LISTS = dict(map(_entries, _LISTS.splitlines()))
TEMPLATES = _TEMPLATES.splitlines()


def everyday_sentence(rng: random.Random) -> str:
    """One sentence, as it is written."""
    text = rng.choice(TEMPLATES)
    while slot := _SLOT.search(text):
        text = text[: slot.start()] + rng.choice(LISTS[slot[1]]) + text[slot.end() :]
    return text[0].upper() + text[1:]
