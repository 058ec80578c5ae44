"""The other models of the family on the real engine: greedy rows are what transformers would draw, and the pipeline.

tts     32 codebooks of 64 codes, a text head of its own      the golden checkpoint of 32 codebooks
voice   32 codebooks of 256 codes, tied, small and deep       `other_models.make_tied`
sound   16 codebooks of 256 codes, a text head of its own     the golden checkpoint
"""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from golden_data import GOLDEN
from made_checkpoints import codec_tensors, write_single
from other_models import NVQ32_CODEC, make_tied
from safetensors import safe_open
from transformers import Qwen2Tokenizer
from transformers_logits import logits_by_transformers
from typer.testing import CliRunner
from warm_engine import asked
from warm_start import warm_server

from sglang_moss.benchmarks.reference.rows_engine import RowsAnswer
from sglang_moss.clients import MossClient, Reference
from sglang_moss.clients.cli import app
from sglang_moss.clients.local_server import LocalServer
from sglang_moss.config import special_tokens
from sglang_moss.delay.layout import apply_delay
from sglang_moss.fuse import fuse
from sglang_moss.request.profile import PROFILES
from sglang_moss.request.prompt import build_prompt, choose_mode
from sglang_moss.request.script import read_script

pytestmark = [pytest.mark.server, pytest.mark.slow]

SHAPES = ("tts", "voice", "sound")
TIE = 1e-4  # logits nearer than this may be drawn either way; float32 noise is 1e-5
N_FRAMES = 24
GREEDY = {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": N_FRAMES}
TEXTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "tts": [
        ("${token:25}The train leaves at nine[pause 3.2s] hurry!", {"language": "English"}),
        ("nin2 hao3，qing3 wen4", {}),
        ("${instruction:calm}${language:French}/bɔ̃ʒuʁ/", {"quality": "q", "sound_event": "e"}),
    ],
    "voice": [
        ("Ahoy there!", {"instruction": "an old sailor, hoarse, amused"}),
        ("${instruction:疲惫沙哑的老年声音}哎呀，我的老腰啊。", {}),
    ],
    "sound": [
        ("", {"ambient_sound": "Rolling thunder with steady rainfall.", "tokens": 12}),
        ("${token:25}${ambient_sound:a sports car roaring past}", {}),
        ("${ambient_sound:雷声隆隆，雨声淅沥。}", {}),
        ("", {"ambient_sound": "rain"}),
    ],
}
WISHED: dict[str, tuple[str, dict[str, Any]]] = {  # 2 frames
    "tts": ("${token:2}One, two.", {}),
    "voice": ("One, two.", {"instruction": "calm"}),  # takes no length
    "sound": ("", {"tokens": 2, "ambient_sound": "rain"}),
}
N_SEEDS = 4
_SPENT = re.compile(r"the length was spent after (\d+) rows")


@dataclass(frozen=True)
class Model:
    """A checkpoint of one shape."""

    fused: Path
    directory: Path  # in the published layout
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=SHAPES)
def profile(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("family")
    write_single(folder / "codec", NVQ32_CODEC, codec_tensors(NVQ32_CODEC, seed=32))
    sources = {
        "tts": (GOLDEN / "ttsd_nvq32", folder / "codec"),
        "voice": (make_tied(folder / "MOSS-VoiceGenerator")[0], GOLDEN / "codec"),
        "sound": (GOLDEN / "ttsd", GOLDEN / "codec"),
    }
    found = {}
    for name, (directory, codec) in sources.items():
        fuse(directory, codec, folder / name, profile=None if name == "voice" else name)
        config = json.loads((directory / "config.json").read_text())
        tensors = {}
        for path in directory.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        tensors.setdefault("lm_heads.0.weight", tensors["language_model.embed_tokens.weight"])
        found[name] = Model(folder / name, directory, config, tensors)
    return found


@pytest.fixture(scope="module")
def answers(models: dict[str, Model], profile: str) -> list[list[RowsAnswer]]:
    """Greedy ones to `TEXTS`, and those to `WISHED`, by seeds."""
    greedy = [
        {"text": text, "sampling_params": {**GREEDY, "custom_params": {**fields, "text_temperature": 0.0}}}
        for text, fields in TEXTS[profile]
    ]
    text, fields = WISHED[profile]
    drawn = [
        {"text": text, "sampling_params": {"sampling_seed": seed, "custom_params": fields}} for seed in range(N_SEEDS)
    ]
    return asked(models[profile].fused, greedy, drawn if profile != "voice" else [])


def test_greedy_rows_are_what_transformers_would_draw(
    models: dict[str, Model], profile: str, answers: list[list[RowsAnswer]]
):
    model = models[profile]
    tokens = special_tokens(model.config)
    tokenizer = Qwen2Tokenizer.from_pretrained(str(model.directory))
    outside = [tokens.text_pad, tokens.gen_slot, tokens.delay_slot, tokens.audio_end, tokens.im_end]
    n_heard = 0
    for (text, fields), answer in zip(TEXTS[profile], answers[0], strict=True):
        if answer.error is not None and "no audio" in answer.error:
            continue  # weights that have learnt nothing may write words instead
        n_heard += 1
        assert answer.error is None
        script = read_script(text, PROFILES[profile], fields)
        mode = choose_mode(None, 0, PROFILES[profile])
        prompt = build_prompt(script, None, None, tokenizer, tokens, mode, profile=PROFILES[profile]).rows
        assert answer.meta["prompt_tokens"] == len(prompt)
        n_frames = len(answer.codes)
        assert n_frames > 0
        n_words = answer.text_ids.index(tokens.audio_start)
        # Every row of which all codes are known: words, <audio_start>, then those of whole frames.
        rows = np.full((n_words + 1 + n_frames, 1 + tokens.n_vq), tokens.pad_code)
        rows[:, 0] = answer.text_ids[: len(rows)]
        rows[n_words + 1 :, 1:] = apply_delay(answer.codes, tokens.pad_code)[:n_frames]
        whole = torch.from_numpy(np.concatenate([prompt, rows]).astype(np.int64))
        text_logits, audio_logits = logits_by_transformers(model.config, model.tensors, whole)
        for i, row in enumerate(rows[: n_words + 1], start=len(prompt) - 1):
            logits = text_logits[i].clone()
            logits[outside] = -torch.inf
            assert logits[row[0]] >= logits.max() - TIE
        for i, row in enumerate(rows[n_words + 1 :], start=len(prompt) + n_words):
            for k in np.flatnonzero(row[1:] != tokens.pad_code):
                logits = audio_logits[k, i, : tokens.pad_code]
                assert logits[row[1 + k]] >= logits.max() - TIE, (i, k)
            gen, delay = text_logits[i, tokens.gen_slot], text_logits[i, tokens.delay_slot]
            assert (gen if row[0] == tokens.gen_slot else delay) >= max(gen, delay) - TIE
            if row[0] == tokens.delay_slot:
                break  # the others are forced
    assert n_heard


def test_a_length_that_is_wished_for_bounds_a_request_without_one(
    models: dict[str, Model], profile: str, answers: list[list[RowsAnswer]]
):
    if profile == "voice":
        pytest.skip("takes no length")
    n_most = 3 + models[profile].config["n_vq"] + 2  # ceil(1.5 x 2) frames, and those that the flush takes
    for answer in answers[1]:
        spent = _SPENT.search(answer.error or "")
        n_rows = len(answer.text_ids) if spent is None else int(spent[1])
        assert 0 < n_rows <= n_most


@pytest.fixture(scope="module")
def voice_server(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("voice")
    extra = ["--voices-dir", str(folder / "voices")]
    with warm_server(models["voice"].fused, log=folder / "server.log", extra_args=extra) as running:
        yield running


@pytest.fixture(scope="module")
def dialogue_server(fused_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("dialogue")
    extra = ["--voices-dir", str(folder / "voices")]
    with warm_server(fused_path, log=folder / "server.log", extra_args=extra) as running:
        yield running


def test_a_designed_voice_speaks_in_a_dialogue(voice_server: LocalServer, dialogue_server: LocalServer):
    servers = ["--voice-url", voice_server.url, "--store-url", dialogue_server.url]
    for seed in range(20):  # weights that have learnt nothing do not always come to an end
        command = [
            "design",
            "an old sailor",
            "--name",
            "sailor",
            "--text",
            "Ahoy there!",
            "--seed",
            str(seed),
            *servers,
        ]
        result = CliRunner().invoke(app, command)
        if result.exit_code == 0:
            break
        assert "try another --seed" in result.stderr or "sound" in result.stderr, result.output
    assert result.exit_code == 0, result.output
    with MossClient(dialogue_server.url) as client:
        assert client.voice("sailor").text == "Ahoy there!"
        chunks = list(client.speech("[S1] Off we go. [S2] Yes.", {1: "sailor"}, max_seconds=1.0, seed=1))
    assert sum(chunk.seconds for chunk in chunks) > 0


def test_a_server_tells_its_profile_and_refuses_what_is_anothers(voice_server: LocalServer):
    with httpx.Client(base_url=voice_server.url, timeout=60) as client:
        profile = client.get("/v1/audio/profile").json()
        assert (profile["name"], profile["required"]) == ("voice", ["text", "instruction"])
        assert client.get("/v1/models").json()["data"][0]["id"] == "moss-voice-generator"
        clip = base64.b64encode((GOLDEN / "cases" / "audio" / "spk1_24k.wav").read_bytes()).decode()
        described = {"custom_params": {"instruction": "a sailor"}}
        for body, message in (
            ({"text": "Ahoy!"}, "instruction: MOSS-VoiceGenerator works from it"),
            ({"text": "Ahoy!", "audio_data": [clip], "sampling_params": described}, "audio_data: .* takes none"),
            ({"text": "[S1] Ahoy!", "sampling_params": described}, "has no speakers"),
            ({"text": "Ahoy!", "sampling_params": {"custom_params": {"tokens": 3}}}, "tokens: .* takes none"),
        ):
            answer = client.post("/generate", json=body)
            assert answer.status_code == 400
            assert re.search(message, answer.json()["error"]["message"]), answer.text
    with MossClient(voice_server.url) as asking, pytest.raises(Exception, match="takes none"):
        asking.generate("Ahoy!", [Reference(GOLDEN / "cases" / "audio" / "spk1_24k.wav")], instruction="a sailor")
