"""The nodes of ComfyUI, loaded and called as it does: by their folder, with their declared inputs, by name."""

import importlib.util
import inspect
import io
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fake_endpoints import serving, three_events
from fake_manager import SAMPLE_RATE, FakeManager, frames_of
from waiting import wait_for

from sglang_moss.clients import ClientError, MossClient

pytestmark = pytest.mark.wide

FOLDER = Path(__file__).resolve().parents[2] / "clients" / "comfyui"
TONE = {"waveform": torch.sin(torch.arange(16_000) / 9).expand(1, 2, -1) * 0.5, "sample_rate": 16_000}


@pytest.fixture(scope="module")
def nodes() -> dict[str, type]:
    spec = importlib.util.spec_from_file_location("custom_nodes_moss", FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys()
    return module.NODE_CLASS_MAPPINGS


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, FakeManager]]:
    with serving(three_events, tmp_path) as (client, manager):
        yield str(client.base_url), manager


def execute(node: type, **connected: Any) -> tuple:
    """One execution: declared defaults for what is not connected, all by name."""
    declared = node.INPUT_TYPES()
    widgets = {
        name: options[1]["default"]
        for kind in declared.values()
        for name, options in kind.items()
        if len(options) > 1 and "default" in options[1]
    }
    assert connected.keys() <= {name for kind in declared.values() for name in kind}
    outputs = getattr(node(), node.FUNCTION)(**{**widgets, **connected})
    assert len(outputs) == len(node.RETURN_TYPES)
    return outputs


def test_declared_inputs_are_what_the_functions_take(nodes: dict[str, type]):
    for node in nodes.values():
        taken = set(inspect.signature(getattr(node, node.FUNCTION)).parameters) - {"self"}
        assert taken == {name for kind in node.INPUT_TYPES().values() for name in kind}


def test_a_workflow_of_two_voices_speaks(nodes: dict[str, type], service: tuple[str, FakeManager]):
    url, manager = service
    with MossClient(url) as client:
        client.add_voice("alice", wav_of(TONE), "Eins.")
    (voices,) = execute(nodes["MossTTSDVoice"], speaker=2, clip=TONE, transcript="Zwei.")
    (voices,) = execute(nodes["MossTTSDVoice"], speaker=1, name="alice", voices=voices)
    (audio,) = execute(nodes["MossTTSDSpeech"], script="[S1] Hi. [S2] Ho.", seed=3, server=url, voices=voices)
    expected = np.concatenate(list(map(frames_of, (100, 200, 300))))
    assert audio["sample_rate"] == SAMPLE_RATE
    assert audio["waveform"].dtype == torch.float32
    assert audio["waveform"].shape == (1, 1, len(expected))
    assert np.array_equal(audio["waveform"][0, 0].numpy() * 32_768, expected)
    (request,) = manager.requests
    assert request.text.endswith("[S1]Eins.[S2]Zwei.[S1] Hi. [S2] Ho.".replace("] H", "]H").replace(". [", ".["))
    assert request.sampling_params["sampling_seed"] == 3
    assert "temperature" not in request.sampling_params  # the model's own


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_temperature_that_is_set_is_sent(
    nodes: dict[str, type], service: tuple[str, FakeManager], temperature: float
):
    url, manager = service
    execute(nodes["MossTTSDSpeech"], server=url, temperature=temperature)
    assert manager.requests[0].sampling_params["temperature"] == temperature


def wav_of(audio: dict[str, Any]) -> bytes:
    from sglang_moss.clients.comfyui.nodes import clip_of

    return clip_of(audio)


def test_a_clip_travels_as_mono_of_its_own_rate():
    with wave.open(io.BytesIO(wav_of(TONE))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16_000, 16_000)
        samples = np.frombuffer(file.readframes(16_000), "<i2")
    assert np.abs(samples / 32_767 - TONE["waveform"][0, 0].numpy()).max() <= 1 / 32_767


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"speaker": 1}, "either"),
        ({"speaker": 1, "name": "alice", "clip": TONE}, "either"),
        ({"speaker": 1, "name": "alice", "voices": {1: "bob"}}, "already"),
    ],
)
def test_a_voice_that_is_not_one_is_refused(nodes: dict[str, type], inputs: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        execute(nodes["MossTTSDVoice"], **inputs)


def test_the_servers_sentence_reaches_the_user(nodes: dict[str, type], service: tuple[str, FakeManager]):
    with pytest.raises(ClientError, match="nobody"):
        execute(nodes["MossTTSDSpeech"], server=service[0], voices={1: "nobody"})


def test_a_run_that_is_stopped_ends_on_the_server(
    nodes: dict[str, type], service: tuple[str, FakeManager], monkeypatch: pytest.MonkeyPatch
):
    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    management = ModuleType("comfy.model_management")
    management.throw_exception_if_processing_interrupted = stop  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "comfy", ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    url, manager = service
    with pytest.raises(StoppedError):
        execute(nodes["MossTTSDSpeech"], server=url)
    wait_for(lambda: len(manager.closed) == 1)


def test_the_clients_need_only_what_the_folder_asks_for():
    names = (FOLDER / "requirements.txt").read_text().split()
    wanted = {name.partition(">=")[0] for name in names} | {"sglang_moss", "torch"}
    code = (
        "import sys, torch; before = set(sys.modules); import sglang_moss.clients.comfyui;"
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before if m.partition('.')[0] not in"
        " sys.stdlib_module_names and not m.startswith('_')})"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    # What httpx brings, or looks for and does without.
    assert loaded <= wanted | {"anyio", "certifi", "click", "h11", "h2", "httpcore", "idna", "pygments", "rich"} | {
        "brotli", "brotlicffi", "zstandard", "sniffio"
    }  # fmt: skip
