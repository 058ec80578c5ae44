"""The page's files over HTTP: public, cached by their content, closed to everything else."""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from page_browser import served_page

import sglang_moss.server.page.page

pytestmark = pytest.mark.wide

STATIC = Path(sglang_moss.server.page.__file__).parent / "static"
FILES = sorted(str(file.relative_to(STATIC)) for file in STATIC.rglob("*") if file.is_file())
MODULES = [name for name in FILES if name.endswith(".js")]
INDEX = (STATIC / "index.html").read_text()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    voices = tmp_path_factory.mktemp("voices")
    with (
        served_page(lambda _: [], voices, api_key="secret") as (address, _),
        httpx.Client(base_url=address, timeout=60) as opened,
    ):
        yield opened


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
def test_every_file_is_public_and_says_how_far_it_may_reach(client: httpx.Client, path: str):
    answer = client.get(path)
    assert answer.status_code == 200
    assert client.head(path).headers["content-length"] == str(len(answer.content))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"http://" not in answer.content.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in answer.content


def test_all_modules_and_styles_are_asked_for_at_once():
    """An import is only known once the module before it has come: each would wait for the server once more."""
    named = set(re.findall(r'(?:href|src)="page/([^"#]+)', INDEX))
    assert {name for name in FILES if name.endswith((".js", ".css"))} == {
        n for n in named if n.endswith((".js", ".css"))
    }


def test_every_module_is_imported_by_another():
    def imports(name: str) -> set[str]:
        found = re.findall(r'(?:from|import) "(\.[^"]+)"', (STATIC / name).read_text())
        return {posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in found}

    assert set().union(*map(imports, MODULES)) == set(MODULES) - {"main.js"}


def test_a_file_is_sent_again_only_when_it_has_changed(client: httpx.Client):
    answer = client.get("/page/main.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get("/page/main.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none.js", "/page/%2e%2e/page.py", "/page/..%2fpage.py", "/page//etc/passwd", "/page/%00"]
)
def test_nothing_else_is_in_it(client: httpx.Client, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    assert len(answer.content) < 100


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/"), ("POST", "/page/main.js"), ("GET", "/page"), ("GET", "/pages/a"), ("GET", "/v1/audio/voices")],
)
def test_all_else_needs_the_key(client: httpx.Client, method: str, path: str):
    assert client.request(method, path).status_code == 401
