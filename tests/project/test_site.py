"""The documentation as a site: it builds with every link led somewhere, and needs nothing from elsewhere."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.wide


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(site),
    ]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


class _Loaded(HTMLParser):
    """What a browser fetches by itself, and where links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.links.append(values.get("href") or "")
        else:
            self.fetched += [value for name in ("src", "href") if (value := values.get(name))]


def test_no_page_fetches_anything_from_elsewhere(site: Path):
    for page in site.rglob("*.html"):
        assert not [url for url in _Loaded(page).fetched if re.match(r"([a-z]+:)?//", url)], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?https?:|@import", sheet.read_text("utf-8")), sheet


def test_every_document_is_reached_from_the_first_page(site: Path):
    linked = {link.partition("#")[0] for link in _Loaded(site / "index.html").links}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= linked


def test_no_link_leaves_the_site_for_a_file_that_is_not_there(site: Path):
    for page in site.rglob("*.html"):
        for link in _Loaded(page).links:
            path = link.partition("#")[0]
            if path and not re.match(r"[a-z]+:", path) and page.name != "404.html":
                assert (page.parent / path).exists(), (page, link)


def test_the_reference_describes_what_clients_import(site: Path):
    from sglang_moss import clients

    text = (site / "reference.html").read_text("utf-8")
    missing = [name for name in clients.__all__ if f'id="sglang_moss.clients.{name}"' not in text]
    errors = [name for name in missing if f'id="sglang_moss.clients.errors.{name}"' in text]
    assert set(missing) - set(errors) <= {"Mode"}


def test_search_finds_a_field_of_the_api(site: Path):
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    assert any(doc["location"].startswith("api.html") and "chunk_frames" in doc["text"] for doc in index["docs"])


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path):
    documents = tmp_path / "docs"
    documents.mkdir()
    for path in (ROOT / "docs").iterdir():
        (documents / path.name).symlink_to(path)
    (documents / "limits.md").unlink()
    (documents / "limits.md").write_text("# Limits\n\n[gone](nowhere.md) [no heading](api.md#nothing)\n")
    config = tmp_path / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text("utf-8").replace("[docs/site/", f"[{ROOT}/docs/site/")
    config.write_text(text)
    built = build(config, tmp_path / "site")
    assert built.returncode != 0
    assert "nowhere.md" in built.stderr
    assert "#nothing" in built.stderr
