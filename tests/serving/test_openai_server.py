"""The real server on this machine's CPU, asked by the official client: `/generate`'s speech, in every form."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from golden_data import GOLDEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_browser import chromium, downloaded, open_panel, speak, write
from sound_files import assert_same_samples, best_match, decoded
from warm_start import warm_server

from sglang_moss.benchmarks.reference.waveforms import pcm_of_wav
from sglang_moss.clients.local_server import LocalServer

pytestmark = pytest.mark.server

RATE = 24_000
SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"
SCRIPT = "Hello there."
SECONDS = 3.2  # 40 frames
CLIPS = GOLDEN / "cases" / "audio"
ALICE = (CLIPS / "spk1_24k.wav").read_bytes()
BOB = (CLIPS / "spk2_24k.wav").read_bytes()


@pytest.fixture(scope="module")
def server(fused_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("openai")
    arguments = ["--api-key", "secret", "--voices-dir", str(folder / "voices")]
    with warm_server(fused_path, log=folder / "server.log", extra_args=arguments) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer secret"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=120) as opened:
        for name, text, clip in (("alice", "Good morning, everyone.", ALICE), ("bob", "It is about to rain.", BOB)):
            answer = opened.post(VOICES, data={"name": name, "text": text}, files={"audio": ("a.wav", clip)})
            assert answer.status_code == 201, answer.text
        yield opened


@pytest.fixture(scope="module")
def official(server: LocalServer, client: httpx.Client) -> Iterator[openai.OpenAI]:  # noqa: ARG001 (stores voices)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0, timeout=120) as opened:
        yield opened


def test_a_stored_voice_is_known_before_it_has_spoken(client: httpx.Client):
    body = {
        "text": "[S1] Hello.",
        "audio_data": [base64.b64encode(BOB).decode()],
        "sampling_params": {"max_new_tokens": 5, "ignore_eos": True, "custom_params": {"mode": "voice_clone"}},
    }
    assert client.post("/generate", json=body).json()["meta_info"]["reference_cached"] is True


def generated(client: httpx.Client, text: str, seed: int, clips: list[bytes] | None = None) -> np.ndarray | None:
    """[L] int16 of `/generate`, None if the model chose to say nothing."""
    body: dict[str, Any] = {"text": text, "sampling_params": {"max_new_tokens": 40, "sampling_seed": seed}}
    if clips:
        body["audio_data"] = [base64.b64encode(clip).decode() for clip in clips]
    answer = client.post("/generate", json=body)
    if answer.status_code == 400 and "no audio" in answer.text:
        return None
    assert answer.status_code == 200, answer.text
    return np.rint(np.asarray(pcm_of_wav(answer.json()["text"])) * 32768).astype(np.int16)


@pytest.fixture(scope="module")
def speech(client: httpx.Client) -> tuple[int, np.ndarray]:
    """A seed with which the random weights speak for a while, and what they say."""
    for seed in range(100):
        pcm = generated(client, "${normalize_text}[S1] " + SCRIPT, seed)
        if pcm is not None and len(pcm) >= 0.8 * RATE:
            return seed, pcm
    raise AssertionError("no seed speaks")


def extras(seed: int, **more: Any) -> dict[str, Any]:
    return {"seed": seed, "max_seconds": SECONDS, **more}


@pytest.mark.parametrize("audio_format", ["pcm", "wav", "flac", "mp3", "opus", "aac"])
def test_the_official_client_hears_what_generate_says(official: openai.OpenAI, speech: Any, audio_format: Any):
    seed, expected = speech
    answer = official.audio.speech.create(
        model="tts-1", input=SCRIPT, voice="default", response_format=audio_format, extra_body=extras(seed)
    )
    heard = decoded(audio_format, answer.read(), RATE)
    if audio_format in ("pcm", "wav", "flac"):
        assert_same_samples(heard, expected)
    else:
        assert abs(len(heard) - len(expected)) < 0.1 * RATE
        assert best_match(heard, expected) > 0.9


def test_the_official_client_streams(official: openai.OpenAI, speech: Any):
    seed, expected = speech
    with official.audio.speech.with_streaming_response.create(
        model="m",
        input=SCRIPT,
        voice="default",
        response_format="pcm",
        extra_body=extras(seed, chunk_frames=2, first_frames=1),
    ) as answer:
        pieces = list(answer.iter_bytes())
    assert_same_samples(np.frombuffer(b"".join(pieces), "<i2"), expected)


def test_the_page_plays_what_generate_says(server: LocalServer, speech: Any, tmp_path: Path):
    seed, expected = speech
    with chromium() as browser:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("This server asks for an API key").fill("secret")
        page.keyboard.press("Enter")
        open_panel(page, "Voices")
        page.get_by_label("Voice of speaker 1").select_option("")  # the first script is cast with a stored voice
        settings = open_panel(page, "Settings")
        settings.get_by_text("More settings").click()
        settings.get_by_label("Seed", exact=True).fill(str(seed))
        settings.get_by_label("At most, seconds").fill(str(SECONDS))
        write(page, SCRIPT)
        speak(page)
        file = downloaded(page, "WAV").rename(tmp_path / "heard.wav")
    assert_same_samples(decoded("wav", file.read_bytes(), RATE), expected)


def test_the_official_client_gets_events(official: openai.OpenAI, speech: Any):
    seed, expected = speech
    answer = official.audio.speech.create(
        model="m", input=SCRIPT, voice="default", response_format="pcm", stream_format="sse", extra_body=extras(seed)
    )
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    heard = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert_same_samples(np.frombuffer(heard, "<i2"), expected)
    assert events[-1]["usage"]["output_tokens"] >= len(expected) // 1920


def test_the_speech_api_tells_when_turns_are_heard(client: httpx.Client):
    body = {"input": "[S1] Did you hear that? [S2] No.", "voices": {"S1": "alice", "S2": "bob"}, "max_seconds": SECONDS}
    body |= {"stream_format": "sse", "response_format": "pcm", "seed": 7, "timestamps": True}
    answer = client.post(SPEECH, json=body)
    assert answer.status_code == 200, answer.text
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line[:5] == "data:"]
    seconds = sum(len(base64.b64decode(event["audio"])) for event in events[:-1]) / 2 / RATE
    turns = events[-1]["turns"]  # without the words of the voices, though the model continues them
    assert [turn["text"] for turn in turns] == ["Did you hear that?", "No."][: len(turns)]
    assert 0 <= turns[0]["start"] < turns[-1]["end"] <= seconds


async def stream_asynchronously(url: str, seed: int) -> bytes:
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="secret") as asynchronous,
        asynchronous.audio.speech.with_streaming_response.create(
            model="m", input=SCRIPT, voice="default", response_format="pcm", extra_body=extras(seed)
        ) as answer,
    ):
        return b"".join([piece async for piece in answer.iter_bytes()])


def test_the_official_asynchronous_client_streams(server: LocalServer, speech: Any):
    seed, expected = speech
    heard = asyncio.run(stream_asynchronously(server.url, seed))
    assert_same_samples(np.frombuffer(heard, "<i2"), expected)


def test_names_inline_clips_and_generate_are_one_speech(client: httpx.Client):
    transcripts = "[S1]Good morning, everyone.[S2]It is about to rain.[S1]Hello.[S2]Hi."
    inline = {"audio": base64.b64encode(BOB).decode(), "text": "It is about to rain.", "speaker": "S2"}
    seeds = ((seed, generated(client, transcripts, seed, [ALICE, BOB])) for seed in range(50))
    seed, expected = next((seed, pcm) for seed, pcm in seeds if pcm is not None)
    body = extras(seed, input="[S1] Hello. [S2] Hi.", normalize=False, response_format="pcm")
    mixes: list[dict[str, Any]] = [
        {"voices": {"S1": "alice", "S2": {"id": "BOB"}}},
        {"voice": "alice", "voices": {"2": "bob"}},
        {"voice": {"id": "alice"}, "references": [inline]},
    ]
    for mix in mixes:
        answer = client.post(SPEECH, json={**body, **mix})
        assert answer.status_code == 200, answer.text
        assert_same_samples(np.frombuffer(answer.content, "<i2"), expected)


def test_a_script_in_parts_is_heard_whole(client: httpx.Client):
    turns = [{"speaker": 1 + i % 2, "text": f"This is turn {i}, with so many words in it that a few fill a part."}
             for i in range(6)]  # fmt: skip
    body = {"dialogue": turns, "response_format": "pcm", "split_seconds": 12, "max_seconds": 20}
    for voices in ({"S1": "alice", "S2": "bob"}, {}):
        for seed in range(20):
            events = client.post(SPEECH, json={**body, "voices": voices, "seed": seed, "stream_format": "sse"}).text
            if '"speech.audio.done"' in events:
                break
            assert "no audio" in events  # random weights end their turn when they like
        else:
            raise AssertionError("no seed speaks all parts")


def test_what_was_asked_for_is_refused_before_it_costs_time(client: httpx.Client):
    references = [{"audio": base64.b64encode(b"no sound").decode()}]
    for fields, param in (
        ({"input": "[S6] a"}, "input"),
        ({"input": " "}, "input"),
        ({"input": "a", "references": references}, "references"),
        ({"input": "word " * 60_000, "split": False}, "input"),
        ({"input": "a", "temperature": -1}, None),
        ({"input": "a", "chunk_frames": 0}, None),
        ({"input": "a", "first_frames": 513}, None),
        ({"input": "a", "top_k": 0}, None),
    ):
        answer = client.post(SPEECH, json=fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(values, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=9), v, max_size=3))
FIELDS = (
    "model", "input", "voice", "response_format", "speed", "stream_format", "instructions", "references", "dialogue",
    "voices", "mode", "normalize", "temperature", "top_p", "seed", "max_seconds", "chunk_frames", "split_seconds",
    "first_frames",
)  # fmt: skip

UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=150, suppress_health_check=UNCHECKED)
@given(bad=st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4))
def test_no_body_fails_the_server(client: httpx.Client, bad: dict[str, Any]):
    fields = {"input": "a", "max_seconds": 0.08, "response_format": "pcm", **bad}
    if isinstance(fields["max_seconds"], float | int) and fields["max_seconds"] > 1:
        fields["max_seconds"] = 1
    answer = client.post(SPEECH, content=json.dumps(fields), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


def test_every_route_asks_for_the_key(server: LocalServer):
    for method, path in (("POST", SPEECH), ("GET", VOICES), ("POST", VOICES), ("DELETE", f"{VOICES}/alice")):
        assert httpx.request(method, f"{server.url}{path}", timeout=120).status_code == 401


def test_the_model_is_listed(official: openai.OpenAI):
    [model] = official.models.list()
    assert model.object == "model"


def test_a_model_is_known_by_its_name_alone(official: openai.OpenAI):
    assert official.models.retrieve("moss-ttsd").id == "moss-ttsd"
    with pytest.raises(openai.NotFoundError):
        official.models.retrieve("tts-1-hd")


def test_an_offer_of_http_2_is_no_reason_to_lose_the_body(client: httpx.Client):
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"}
    body = {"text": "[S1] Hello.", "sampling_params": {"max_new_tokens": 5, "ignore_eos": True}}
    answer = client.post("/generate", json=body, headers=offer)
    assert answer.status_code == 200
    assert answer.json()["meta_info"]["audio_frames"] == 5


def test_a_length_of_the_speech_api_is_taken_at_its_word(client: httpx.Client):
    speech = {"input": "Hello there.", "voice": "alice", "response_format": "pcm", "max_seconds": 0.8, "seed": 1}
    counts = set()
    for seed in range(8):  # however the weights end, a voice adds no frames
        answer = client.post(SPEECH, json=speech | {"seed": seed})
        counts.add(len(answer.content) / 2 / RATE if answer.status_code == 200 else 0)
    assert max(counts) == 0.8


def test_the_schema_names_our_fields(client: httpx.Client):
    schema = client.get("/openapi.json").json()
    assert {SPEECH, VOICES, VOICES + "/{name}"} <= schema["paths"].keys()
    assert "dialogue" in schema["components"]["schemas"]["SpeechFields"]["properties"]


def test_a_clip_as_data_uri_is_taken_too(client: httpx.Client):
    audio = "data:audio/wav;base64," + base64.b64encode(ALICE).decode()
    for seed in range(30):
        body = extras(seed, input="Hello.", references=[{"audio": audio, "text": "Hi."}], response_format="wav")
        answer = client.post(SPEECH, json=body)
        if answer.status_code == 200:
            assert len(decoded("wav", io.BytesIO(answer.content).getvalue()))
            return
        assert "no audio" in answer.text
    raise AssertionError("no seed speaks")
