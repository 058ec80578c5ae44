"""The real server over HTTP, on this machine's CPU: parity end to end, request shapes, and what it refuses."""

import base64
import concurrent.futures
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from generate_bodies import assert_same_speech, clip, fixed
from golden_data import GOLDEN, golden_arrays
from sound_files import tone_file
from waiting import wait_until_idle

from sglang_moss.benchmarks.reference.golden_cases import GoldenCases
from sglang_moss.benchmarks.reference.waveforms import pcm_of_wav
from sglang_moss.clients.local_server import LocalServer

pytestmark = pytest.mark.server

CASES = GoldenCases(GOLDEN)
ARRAYS = golden_arrays("e2e/e2e")
RATE = 24_000
# 16-bit samples are half a step off at most, the decoder's float32 noise is 3e-7.
WAV_TOLERANCE = 0.5 / 32768 + 1e-6


@pytest.fixture(scope="module")
def server(fused_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    arguments = ["--api-key", "secret", "--trust-remote-code"]
    command = (sys.executable, "-m", "sglang_moss.command", "serve")  # `moss-ttsd serve`
    with LocalServer(fused_path, log=log, extra_args=arguments, command=command) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer secret"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=120) as opened:
        yield opened


def wav(seconds: float, **options: Any) -> str:
    return base64.b64encode(tone_file(seconds, **options)).decode()


def ask(client: httpx.Client, body: dict[str, Any]) -> Any:
    answer = client.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("key", CASES.comparable_keys())
def test_codes_and_waveform_equal_the_reference_cold_and_cached(client: httpx.Client, key: str):
    body = CASES.served_request(key)
    body["sampling_params"]["custom_params"] = {"return_codes": True}
    expected = ARRAYS[f"{key}.generated_codes"]
    for _ in range(2):
        answer = ask(client, body)
        meta = answer["meta_info"]
        np.testing.assert_array_equal(meta["audio_codes"], expected)
        assert meta["audio_frames"] == len(expected)
        assert meta["audio_seconds"] == len(expected) * 1920 / RATE
        assert meta["prompt_tokens"] == len(ARRAYS[f"{key}.input_ids"])
        if "over_10s" not in key:  # there the reference's own chunked decoding is not its one-shot decoding
            reference = ARRAYS[f"{key}.waveform"].reshape(-1)
            np.testing.assert_allclose(pcm_of_wav(answer["text"]), reference, atol=WAV_TOLERANCE, rtol=0)
    assert meta["reference_cached"] is True
    assert meta["cached_tokens"] == meta["prompt_tokens"] - 1


def test_a_request_without_whole_frames_says_why(client: httpx.Client):
    answer = client.post("/generate", json=CASES.served_request("no_audio_data.silent"))
    assert answer.status_code == 400
    assert "no audio" in answer.text


def test_the_answer_is_a_mono_16_bit_wav_at_24_khz(client: httpx.Client):
    answer = ask(client, {"text": "[S1] Hello.", "sampling_params": fixed(5)})
    info = soundfile.info(io.BytesIO(base64.b64decode(answer["text"])))
    assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, RATE)
    assert info.frames == 5 * 1920
    assert np.array(answer["meta_info"]["audio_codes"]).shape == (5, CASES.tokens.n_vq)


def test_a_batch_equals_its_requests_alone(client: httpx.Client):
    texts = ["[S1] One.", "[S1] Two. [S2] Three.", "[S1] Four."]
    references = [[clip("spk1_24k.wav")], [clip("spk1_24k.wav"), clip("spk2_24k.wav")], []]
    alone = [
        ask(client, {"text": text, "audio_data": audio, "sampling_params": fixed(9)})
        for text, audio in zip(texts, references, strict=True)
    ]
    together = ask(client, {"text": texts, "audio_data": references, "sampling_params": fixed(9)})
    for one, other in zip(together, alone, strict=True):
        assert_same_speech(one, other)
    assert len({a["text"] for a in alone}) == 3


def test_n_samples_have_seeds_of_their_own_and_the_references(client: httpx.Client):
    body = {"text": "[S1] Hello.", "audio_data": [clip("spk1_24k.wav"), clip("spk2_24k.wav")]}
    samples = ask(client, {**body, "sampling_params": fixed(9, n=3)})
    alone = [ask(client, {**body, "sampling_params": fixed(9, sampling_seed=7 + i)}) for i in range(3)]
    for one, other in zip(samples, alone, strict=True):
        assert_same_speech(one, other)
    assert len({s["text"] for s in samples}) == 3
    assert {s["meta_info"]["prompt_tokens"] for s in samples} == {alone[0]["meta_info"]["prompt_tokens"]}


def test_without_a_seed_answers_differ_and_name_the_seed_that_repeats_them(client: httpx.Client):
    body = {"text": "[S1] Hello.", "sampling_params": fixed(9, sampling_seed=None)}
    first, second = ask(client, body), ask(client, body)
    assert first["text"] != second["text"]
    again = ask(client, {**body, "sampling_params": fixed(9, sampling_seed=first["meta_info"]["sampling_seed"])})
    assert_same_speech(again, first)


@pytest.mark.parametrize("mode", ["generation", "continuation", "voice_clone", "voice_clone_and_continuation"])
def test_every_mode_speaks(client: httpx.Client, mode: str):
    body: dict[str, Any] = {"text": "[S1] Hello.", "sampling_params": fixed(6, custom_params={"mode": mode})}
    if mode != "generation":
        body["audio_data"] = [clip("spk1_24k.wav")]
    assert ask(client, body)["meta_info"]["audio_frames"] == 6


@pytest.mark.parametrize("source", ["flac", "ogg", "mp3", "data-uri", "44.1 kHz stereo", "48 kHz", "one string"])
def test_references_come_in_many_forms(client: httpx.Client, source: str):
    audio: Any = {
        "flac": lambda: [wav(0.5, audio_format="FLAC")],
        "ogg": lambda: [wav(0.5, audio_format="OGG")],
        "mp3": lambda: [wav(0.5, audio_format="MP3")],
        "data-uri": lambda: ["data:audio/wav;base64," + clip("spk1_24k.wav")],
        "44.1 kHz stereo": lambda: [clip("spk4_44k1_stereo.wav")],
        "48 kHz": lambda: [clip("spk5_48k.wav")],
        "one string": lambda: clip("spk1_24k.wav"),
    }[source]()
    assert ask(client, {"text": "[S1] Hi.", "audio_data": audio, "sampling_params": fixed(3)})["meta_info"][
        "audio_frames"
    ]


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "empty text": ({"text": ""}, "text"),
    "blank text": ({"text": " \n"}, "text"),
    "text of tags only": ({"text": "[S1] [S2]"}, "words"),
    "no text": ({}, "text"),
    "sixth speaker": ({"text": "[S6] Hi."}, "[S5]"),
    "speaker zero": ({"text": "[S0] Hi."}, "[S1]"),
    "control token": ({"text": "[S1] a<|im_end|>b"}, "text"),
    "six references": ({"text": "[S1] Hi.", "audio_data": ["AAAA"] * 6}, "at most 5"),
    "not audio": ({"text": "[S1] Hi.", "audio_data": ["AAAA"]}, "reference 1"),
    "empty audio": ({"text": "[S1] Hi.", "audio_data": [wav(0)]}, "reference 1"),
    "second is bad": ({"text": "[S1] Hi.", "audio_data": [clip("spk1_24k.wav"), "AAAA"]}, "reference 2"),
    "too long a clip": ({"text": "[S1] Hi.", "audio_data": [wav(60.5, rate=8000)]}, "60"),
    "a path": ({"text": "[S1] Hi.", "audio_data": ["/etc/passwd"]}, "reference 1"),
    "a file URL": ({"text": "[S1] Hi.", "audio_data": ["file:///etc/passwd"]}, "reference 1"),
    "a private URL": ({"text": "[S1] Hi.", "audio_data": ["http://127.0.0.1:1/a.wav"]}, "reference 1"),
    "a reference object": ({"text": "[S1] Hi.", "audio_data": [{"path": "/etc/passwd"}]}, "reference 1"),
    "unknown mode": ({"text": "[S1] Hi.", "sampling_params": {"custom_params": {"mode": "sing"}}}, "mode"),
    "mode without references": (
        {"text": "[S1] Hi.", "sampling_params": {"custom_params": {"mode": "voice_clone"}}},
        "references",
    ),
    "a chunk of no frames": (
        {"text": "[S1] Hi.", "sampling_params": {"custom_params": {"chunk_frames": 0}}},
        "chunk_frames",
    ),
    "unknown custom parameter": ({"text": "[S1] Hi.", "sampling_params": {"custom_params": {"speed": 2}}}, "speed"),
    "unknown setting": ({"text": "[S1] Hi.", "sampling_params": {"tempo": 2}}, "tempo"),
    "negative temperature": ({"text": "[S1] Hi.", "sampling_params": {"temperature": -1}}, "temperature"),
    "top_p zero": ({"text": "[S1] Hi.", "sampling_params": {"top_p": 0}}, "top_p"),
    "top_k zero": ({"text": "[S1] Hi.", "sampling_params": {"top_k": 0}}, "top_k"),
    "penalty of three": ({"text": "[S1] Hi.", "sampling_params": {"repetition_penalty": 3}}, "repetition_penalty"),
    "no frames": ({"text": "[S1] Hi.", "sampling_params": {"max_new_tokens": 0}}, "max_new_tokens"),
    "length as text": ({"text": "[S1] Hi.", "sampling_params": {"max_new_tokens": "9"}}, "max_new_tokens"),
    "negative seed": ({"text": "[S1] Hi.", "sampling_params": {"sampling_seed": -1}}, "sampling_seed"),
    "min_p": ({"text": "[S1] Hi.", "sampling_params": {"min_p": 0.1}}, "min_p"),
    "ignore_eos without length": ({"text": "[S1] Hi.", "sampling_params": {"ignore_eos": True}}, "max_new_tokens"),
    "too many frames": ({"text": "[S1] Hi.", "sampling_params": fixed(50_000)}, "context"),
    "too long a text": ({"text": "[S1] " + "word " * 45_000}, "context"),
    "token ids": ({"input_ids": [5, 6, 7]}, "input_ids"),
    "an image": ({"text": "[S1] Hi.", "image_data": ["AAAA"]}, "image_data"),
    "logprobs": ({"text": "[S1] Hi.", "return_logprob": True}, "return_logprob"),
    "an empty request id": ({"text": "[S1] Hi.", "rid": ""}, "rid"),
    "batch of other length": ({"text": ["[S1] a", "[S1] b"], "audio_data": [[]]}, "audio_data"),
    "a list as cache salt": ({"text": "[S1] Hi.", "extra_key": ["a"]}, "extra_key"),
    "a LoRA": ({"text": "[S1] Hi.", "lora_id": ["a"]}, "lora_id"),
    "half a character": ({"text": "[S1] Hi \ud800"}, "text"),
    "half a character as id": ({"text": "[S1] Hi.", "rid": "x" * 20 + "\ud800"}, "valid JSON"),
    "a book": ({"text": "[S1] " + "a" * 400_000}, "characters"),
    "too many samples": ({"text": "[S1] Hi.", "sampling_params": {"n": 1000}}, "n "),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_input_gets_a_4xx_with_a_reason(client: httpx.Client, name: str):
    body, word = BAD_REQUESTS[name]
    answer = client.post("/generate", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert word in answer.text


def test_the_api_key_is_asked_for(server: LocalServer):
    assert httpx.post(f"{server.url}/generate", json={"text": "[S1] Hi."}, timeout=120).status_code == 401
    assert "secret" not in server.log.read_text()


def test_weights_cannot_be_swapped_under_a_running_codec(client: httpx.Client):
    answer = client.post("/update_weights_from_disk", json={"model_path": "/nowhere"})
    assert answer.status_code == 404
    assert ask(client, {"text": "[S1] Hello.", "sampling_params": fixed(3)})["meta_info"]["audio_frames"] == 3


def test_the_completions_endpoint_points_to_generate(client: httpx.Client):
    answer = client.post("/v1/completions", json={"model": "default", "prompt": "[S1] Hi."})
    assert answer.status_code == 404
    assert "/generate" in answer.text


def test_a_bad_entry_ends_its_whole_batch(client: httpx.Client):
    """The entries that were fine are not left running for nobody."""
    settings = [fixed(20_000), {"temperature": -1}]
    answer = client.post("/generate", json={"text": ["[S1] a", "[S1] b"], "sampling_params": settings})
    assert answer.status_code == 400
    wait_until_idle(client)


def test_health_checks_pass(client: httpx.Client):
    assert client.get("/health").status_code == 200
    assert client.get("/health_generate").status_code == 200


def test_clients_that_leave_free_their_slots(client: httpx.Client, server: LocalServer):
    """More endless streams than slots, all left after a chunk: the next one is served at once and sounds fresh."""
    body = {"text": "[S1] Hello.", "audio_data": [clip("spk1_24k.wav")]}
    fresh = ask(client, {**body, "sampling_params": fixed(12)})

    def give_up(i: int) -> None:
        endless = {**body, "stream": True, "sampling_params": fixed(20_000, sampling_seed=i)}
        headers = {"Authorization": "Bearer secret"}
        with httpx.stream("POST", f"{server.url}/generate", json=endless, headers=headers, timeout=60) as answer:
            assert next(answer.iter_lines()).startswith("data: ")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(give_up, range(80)))
    wait_until_idle(client)
    for _ in range(2):
        assert_same_speech(ask(client, {**body, "sampling_params": fixed(12)}), fresh)
