"""The documents: every link within the project leads somewhere."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "examples", "tests/golden", "recipes", "docker", "deploy", "clients")
    for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(document: Path):
    for link in _LINK.findall(_FENCE.sub("", document.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file) if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_both_readmes_have_the_same_commands_and_parts():
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md"))
    of = [[_without_words(block) for block in _FENCE.findall(text)] for text in (english, chinese)]
    assert of[0] == of[1]
    assert len(re.findall("^## ", english, re.MULTILINE)) == len(re.findall("^## ", chinese, re.MULTILINE))


def _without_words(block: str) -> str:
    """A block of code without its comments, and without what is said in it."""
    return re.sub(r"# .*|\[S1\][^\"]*|(?<=--reference-text )\"[^\"]*\"", "", block)


def test_both_readmes_link_the_same_documents():
    of = {name: set(_LINK.findall((ROOT / name).read_text("utf-8"))) for name in ("README.md", "README.zh.md")}
    documents = {name: {link for link in links if not link.startswith("README")} for name, links in of.items()}
    assert documents["README.md"] == documents["README.zh.md"]
    linked = {link.partition("#")[0] for link in documents["README.md"]}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "docs/api.md"])
def test_the_pipe_behind_generate_writes_the_sound_and_says_what_was_refused(name: str):
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    document = (ROOT / name).read_text("utf-8")
    found = re.search(r"/generate .*?\|\s*(jq .*? \| base64 -d) > out\.wav", document, re.DOTALL)
    assert found is not None

    def piped(answer: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(found[1], shell=True, input=answer.encode(), capture_output=True, check=False)

    assert piped('{"text": "UklGRg==", "meta_info": {}}').stdout == b"RIFF"
    refused = piped('{"error": {"message": "there is no text", "code": "x"}}')
    assert refused.stdout == b""
    assert b"there is no text" in refused.stderr
