"""Hooks of MkDocs: the site is the repository's documents, with their links as they stand.

    README.md, README.zh.md        the site's first page, in two languages
    docs/*.md                      pages
    whatever these link besides    repository/...: documents as pages, sources as pages with their text, data as files

So every document is written once, reads on a forge as it does here, and a link that leads nowhere ends a strict build.
"""

import posixpath
import re
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
_FIRST = {"README.md": "index.md", "README.zh.md": "zh.md", "CHANGELOG.md": "changelog.md"}
_FIRST |= {"CONTRIBUTING.md": "contributing.md", "examples/README.md": "examples.md"}
_FIRST |= {"clients/comfyui/README.md": "comfyui.md"}
_FIRST |= {"recipes/small_voice/README.md": "small-voice.md"}
_DATA = (".jsonl", ".json", ".svg", ".png", ".wav")
_LINK = re.compile(r"(?<=\]\()(?!#)([^)\s#]+)(?=[)#])")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)

_packages = TemporaryDirectory(prefix="moss-site-")  # as they are installed; gone with the process
_uris: dict[str, str] = {}  # of the site, by path in the repository


@event_priority(100)  # before the reader of docstrings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show the reader of docstrings the packages under their installed names."""
    top = Path(_packages.name) / "sglang_moss"
    if not top.exists():
        top.mkdir()
        for entry in (ROOT / "sglang_moss").iterdir():
            (top / entry.name).symlink_to(entry)
        folders = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"]
        for name, folder in folders.items():
            if "." in name:
                (top / name.partition(".")[2]).symlink_to(ROOT / folder)
    plugin: Any = config.plugins["mkdocstrings"]
    plugin.config.handlers["python"]["paths"] = [_packages.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of `docs/` and is linked from a document, or from what is linked."""
    _uris.clear()
    _uris.update({f"docs/{file.src_uri}": file.src_uri for file in files})
    found = [path for path in _uris if path.endswith(".md")]
    for path, uri in _FIRST.items():
        _uris[path] = uri
        files.append(File.generated(config, uri, content=(ROOT / path).read_text("utf-8")))
        found.append(path)
    while found:
        document = found.pop()
        for link in _links(ROOT / document):
            path = _target(document, link)
            if path is None or path in _uris:
                continue
            file = _file_of(path, config)
            _uris[path] = file.src_uri
            files.append(file)
            if path.endswith(".md"):
                found.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Lead links to where their targets stand in the site; what does not exist is left for MkDocs to find."""
    here = page.file.src_uri
    document = next((path for path, uri in _uris.items() if uri == here), None)
    if document is None:
        return markdown

    def led(link: re.Match[str]) -> str:
        path = _target(document, link[1])
        return link[1] if path is None else posixpath.relpath(_uris[path], posixpath.dirname(here) or ".")

    parts = _FENCE.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(led, part) for i, part in enumerate(parts))


def _links(document: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", document.read_text("utf-8")))


def _target(document: str, link: str) -> str | None:
    """Path in the repository that a link of a document means; None: elsewhere, or nowhere."""
    if re.match(r"[a-z]+:", link):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(document), link))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def _file_of(path: str, config: MkDocsConfig) -> File:
    source = ROOT / path
    if source.is_dir():
        names = sorted(entry.name for entry in source.iterdir() if not entry.name.startswith((".", "__")))
        content = "\n".join([f"# {source.name}", "", f"Files in `{path}`:", "", *(f"- `{name}`" for name in names)])
        return File.generated(config, f"repository/{path}/files.md", content=content)
    if source.suffix in _DATA:
        return File.generated(config, f"repository/{path}", abs_src_path=str(source))
    text = source.read_text("utf-8")
    if source.suffix == ".md":
        return File.generated(config, f"repository/{path}", content=text)
    content = f"# {source.name}\n\n`{path}`\n\n~~~~~~{{.{source.suffix.lstrip('.') or 'text'}}}\n{text}\n~~~~~~\n"
    return File.generated(config, f"repository/{path.lstrip('.')}.md", content=content)
