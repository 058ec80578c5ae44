"""The codec's threads with their clients: encoding over a real socket, and streams from open to result."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import tiny_codec
from speech_requests import random_frames, special_tokens_of, speech_request, spoken_rows, text_rows
from waiting import PATIENCE_S, wait_for

from sglang_moss.codec.encoder_runner import EncoderRunner
from sglang_moss.decode.clip_encoder import ClipEncoder
from sglang_moss.decode.encode_requests import EncodeRequests
from sglang_moss.decode.gauges import CodecLoad
from sglang_moss.decode.service import CodecService
from sglang_moss.decode.stream import SpeechPart
from sglang_moss.decode.wire import chunks_of
from sglang_moss.errors import MossError
from sglang_moss.request.codec_client import CodecClient
from sglang_moss.request.speech import SpeechProgress

TOKENS = special_tokens_of(3, 17)  # of the tiny codec's 5 codebooks
WINDOW_FRAMES = 16
POISON = -7.0  # a window's first sample that the codec chokes on

pytestmark = [pytest.mark.wide, pytest.mark.usefixtures("service")]


class GuardedRunner(EncoderRunner):
    """An encoder whose steps can be held back, and fail where a window begins with `POISON`."""

    def __init__(self) -> None:
        super().__init__(tiny_codec(), TOKENS.n_vq, n_slots=3, window_frames=WINDOW_FRAMES)
        self.may_encode = threading.Event()
        self.may_encode.set()
        self.held: dict[int, threading.Event] = {}  # steps, counted from 1, that wait for something
        self.batches: list[list[int]] = []  # samples of each window of each step

    def encode(self, windows: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray]:
        self.batches.append([len(w) for w in windows])
        assert self.may_encode.wait(PATIENCE_S)
        if event := self.held.pop(len(self.batches), None):
            assert event.wait(PATIENCE_S), "nothing was done between two steps"
        if any(w[0] == POISON for w in windows):
            raise RuntimeError("poisoned")
        return super().encode(windows, slots)


@pytest.fixture(scope="module", params=[False, True], ids=["one thread", "two threads"])
def beside(request: pytest.FixtureRequest) -> bool:
    """Whether references are encoded in a thread of their own, as on a GPU."""
    return request.param


@pytest.fixture(scope="module")
def guarded(beside: bool) -> GuardedRunner:  # noqa: ARG001 (one for each)
    return GuardedRunner()


@pytest.fixture(scope="module")
def address(beside: bool) -> Iterator[str]:  # noqa: ARG001 (one for each)
    with tempfile.TemporaryDirectory() as folder:
        yield f"ipc://{Path(folder) / 'codec'}"


@pytest.fixture(scope="module")
def service(guarded: GuardedRunner, address: str, beside: bool) -> CodecService:
    """One for all tests: its threads live as long as the process, as in the server."""
    state = tiny_codec().new_state(3)
    return CodecService(tiny_codec(), guarded, state, TOKENS, address, n_voices=1, encodes_beside=beside)


def waveform(n_frames: float, seed: int = 0) -> np.ndarray:
    samples = int(n_frames * tiny_codec().config.frame_samples)
    return np.random.default_rng(seed).normal(0, 0.2, samples).astype(np.float32)


def poisoned(n_frames: int) -> np.ndarray:
    return np.concatenate([np.full(1, POISON, np.float32), waveform(n_frames)])


def codes_of(samples: np.ndarray) -> list[list[int]]:
    [codes] = tiny_codec().encode([torch.from_numpy(samples)])
    return codes[:, : TOKENS.n_vq].tolist()


def encode_all(address: str, *requests: list[np.ndarray], guarded: GuardedRunner | None = None) -> list[Any]:
    """What a client gets for requests sent at once: codes of each waveform, or the error."""

    async def session() -> list[Any]:
        client = CodecClient(address, TOKENS.n_vq)
        tasks = [asyncio.create_task(client.encode(request)) for request in requests]
        if guarded is not None:  # the first one holds the codec until the others have come
            while not guarded.batches:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            guarded.may_encode.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    if guarded is not None:
        guarded.batches.clear()
        guarded.may_encode.clear()
    answers = asyncio.run(session())
    return [a if isinstance(a, Exception) else [codes.tolist() for codes in a] for a in answers]


@pytest.mark.parametrize("n_frames", [0.5, 1, 1.5, 2, 7, 40.25])
def test_codes_equal_those_of_the_codec_itself(address, n_frames):
    samples = waveform(n_frames)
    [[codes]] = encode_all(address, [samples])
    assert codes == codes_of(samples)
    assert len(codes) == int(n_frames)


def test_a_request_may_hold_several_waveforms_or_none(address):
    waveforms = [waveform(n, seed=n) for n in (3, 1, 5)]
    several, none = encode_all(address, waveforms, [])
    assert several == [codes_of(w) for w in waveforms]
    assert none == []


def test_requests_that_come_together_get_their_own_codes_in_steps_of_bounded_size(address, guarded):
    seconds = tiny_codec().config.frame_rate
    requests = [[waveform(n * seconds, seed=n)] for n in (1, 2, 30, 3, 100, 4, 50, 50, 50, 1, 2)]
    answers = encode_all(address, *requests, guarded=guarded)
    assert answers == [[codes_of(w)] for [w] in requests]
    assert sum(n for batch in guarded.batches for n in batch) == sum(len(w) for [w] in requests)
    assert max(n for batch in guarded.batches for n in batch) == WINDOW_FRAMES * tiny_codec().config.frame_samples
    assert max(map(len, guarded.batches)) == 3


def test_streams_are_decoded_between_the_windows_of_a_long_clip(service, address, guarded):
    has_come, has_been_heard = threading.Event(), threading.Event()

    async def session() -> int:
        client = CodecClient(address, TOKENS.n_vq)
        guarded.batches.clear()
        guarded.held = {1: has_come, 150: has_been_heard}
        long = asyncio.create_task(client.encode([waveform(300 * WINDOW_FRAMES)]))
        while not guarded.batches:
            await asyncio.sleep(0.001)
        progress, rows, _ = started(service, "a", 3)
        progress.rows.extend(rows)
        service.finish("a")
        has_come.set()
        await asyncio.to_thread(collect, service, 1)
        n_steps = len(guarded.batches)
        has_been_heard.set()
        await long
        return n_steps

    assert asyncio.run(session()) <= 150
    assert len(guarded.batches) >= 300


def test_an_encoding_that_fails_is_an_error_to_its_own_request_only(address, guarded):
    good = [waveform(2), waveform(3)]
    requests = [[good[0]], [poisoned(3)], good, [waveform(4), poisoned(2)]]
    answers = encode_all(address, *requests, guarded=guarded)
    assert answers[0] == [codes_of(good[0])]
    assert answers[2] == [codes_of(w) for w in good]
    for failed in (answers[1], answers[3]):
        assert isinstance(failed, MossError)
        assert "could not encode a reference" in str(failed)
    [again] = encode_all(address, good)
    assert again == [codes_of(w) for w in good]


def test_a_client_that_leaves_disturbs_nobody(address, guarded):
    async def session() -> list[np.ndarray]:
        client = CodecClient(address, TOKENS.n_vq)
        guarded.may_encode.clear()
        leaves = asyncio.create_task(client.encode([waveform(2)]))
        stays = asyncio.create_task(client.encode([waveform(3)]))
        await asyncio.sleep(0.05)
        leaves.cancel()
        await asyncio.sleep(0)
        guarded.may_encode.set()
        return await stays

    [codes] = asyncio.run(session())
    assert codes.tolist() == codes_of(waveform(3))


def test_what_nobody_waits_for_any_more_is_not_encoded(address, guarded, monkeypatch):
    async def session() -> None:
        client = CodecClient(address, TOKENS.n_vq)
        guarded.batches.clear()
        guarded.may_encode.clear()
        first = asyncio.create_task(client.encode([waveform(2)]))
        while not guarded.batches:
            await asyncio.sleep(0.01)
        leaves = asyncio.create_task(client.encode([waveform(31)]))
        stays = asyncio.create_task(client.encode([waveform(3)]))
        await asyncio.sleep(0.05)
        monkeypatch.setattr(EncodeRequests, "receive", received_until_told)
        monkeypatch.setattr(ClipEncoder, "drop", dropped)
        leaves.cancel()
        guarded.may_encode.set()
        await asyncio.gather(first, stays)

    receive, drop, is_told = EncodeRequests.receive, ClipEncoder.drop, threading.Event()

    def received_until_told(requests: EncodeRequests) -> None:
        """What was sent before the step is there after it, however slowly it travels."""
        deadline = time.monotonic() + PATIENCE_S
        receive(requests)
        while not is_told.is_set():
            assert time.monotonic() < deadline
            receive(requests)

    def dropped(encoder: ClipEncoder, job: Any) -> None:
        drop(encoder, job)
        is_told.set()

    asyncio.run(session())
    assert [len(waveform(3))] in guarded.batches
    assert not any(len(waveform(31)) in batch for batch in guarded.batches)


def test_clients_of_the_same_service_get_their_own_answers(address):
    async def session() -> list[Any]:
        clients = [CodecClient(address, TOKENS.n_vq) for _ in range(3)]
        return await asyncio.gather(*(c.encode([waveform(2 + i)]) for i, c in enumerate(clients)))

    answers = asyncio.run(session())
    assert [codes.tolist() for [codes] in answers] == [codes_of(waveform(2 + i)) for i in range(3)]


def collect(service: CodecService, n_results: int) -> dict[str, list[SpeechPart]]:
    """All parts of the next streams that end, for which the service's socket becomes readable."""
    results: dict[str, list[SpeechPart]] = {}
    deadline = time.monotonic() + PATIENCE_S
    while sum(parts[-1].is_last for parts in results.values()) < n_results:
        assert service.woken.poll(1000 * PATIENCE_S), "the service says nothing"
        for rid, part in service.parts():
            results.setdefault(rid, []).append(part)
        assert time.monotonic() < deadline
    wait_for(lambda: is_quiet(service), PATIENCE_S)  # or an idle scheduler would spin
    return results


def is_quiet(service: CodecService) -> bool:
    """Whether nothing wakes the scheduler; once it may be for a part that it has had already."""
    assert service.parts() == []
    return not service.woken.poll(0)


def next_parts(service: CodecService) -> list[tuple[str, SpeechPart]]:
    """What comes next; a wake-up may be for what has come already."""
    while not (found := service.parts()):
        assert service.woken.poll(1000 * PATIENCE_S), "the row that fills a chunk wakes the codec's thread"
    return found


def frames_of(parts: list[SpeechPart]) -> Any:
    """The codes in a whole answer's last part."""
    assert parts[-1].error is None
    assert parts[-1].meta is not None
    return parts[-1].meta["audio_codes"]


def started(
    service: CodecService, rid: str, n_frames: int, is_live: bool = False
) -> tuple[SpeechProgress, list[np.ndarray], np.ndarray]:
    custom = {"return_codes": True, "chunk_frames": 4}
    progress = speech_request(TOKENS, random_frames(4, TOKENS), custom_params=custom)
    frames = random_frames(n_frames, TOKENS, seed=n_frames)
    service.open(rid, progress, is_live)
    return progress, spoken_rows(progress, frames, TOKENS), frames


def test_a_stream_gives_its_frames_and_wakes_the_scheduler(service):
    progress, rows, frames = started(service, "a", 70)
    for row in rows:
        progress.rows.append(row)
        service.row_accepted(progress)
    assert service.parts() == []
    service.finish("a")
    parts = collect(service, 1)["a"]
    np.testing.assert_array_equal(frames_of(parts), frames)
    assert parts[-1].meta is not None
    assert parts[-1].meta["audio_frames"] == len(frames)


def test_a_chunk_comes_with_its_last_row_and_without_any_other_call(service):
    progress, rows, _ = started(service, "a", 30, is_live=True)
    last_rows = [4 * (i + 1) + TOKENS.n_vq - 1 for i in range(7)]
    n_chunks = 0
    for i, row in enumerate(rows):
        progress.rows.append(row)
        service.row_accepted(progress)
        if i + 1 in last_rows:
            [(rid, part)] = next_parts(service)
            assert (rid, part.is_last) == ("a", False)
            n_chunks += 1
    service.finish("a")
    assert n_chunks == 7
    assert len(list(chunks_of("".join(part.text for part in collect(service, 1)["a"])))) == 1


def test_more_streams_than_slots_all_end(service):
    for n_frames in range(1, 8):
        progress, rows, _ = started(service, str(n_frames), n_frames)
        progress.rows.extend(rows)
        service.finish(str(n_frames))
    results = collect(service, 7)
    assert {rid: len(frames_of(parts)) for rid, parts in results.items()} == {str(n): n for n in range(1, 8)}


def test_a_dropped_stream_gives_no_result(service):
    dropped, rows, _ = started(service, "dropped", 70)
    dropped.rows.extend(rows[:50])
    service.row_accepted(dropped)
    service.drop("dropped")
    service.drop("never opened")
    kept, rows, _ = started(service, "kept", 3)
    kept.rows.extend(rows)
    service.finish("kept")
    assert set(collect(service, 1)) == {"kept"}


def test_a_stream_without_audio_ends_in_its_error(service):
    progress = speech_request(TOKENS)
    progress.rows.extend(list(text_rows(2, TOKENS, TOKENS.im_end)))
    service.open("silent", progress, is_live=True)
    service.finish("silent")
    [part] = collect(service, 1)["silent"]
    assert part.error is not None
    assert part.error.startswith("no audio: ")


@pytest.mark.usefixtures("service")
def test_the_thread_answers_whoever_asks_whether_it_does(address, guarded):
    async def ask() -> None:
        client = CodecClient(address, TOKENS.n_vq)
        await asyncio.wait_for(asyncio.gather(*(client.hook_runs() for _ in range(50))), PATIENCE_S)

    guarded.batches.clear()
    asyncio.run(ask())
    assert guarded.batches == []  # nothing was encoded for it


def test_gauges_tell_how_many_references_wait_whatever_else_happens(tmp_path, beside, monkeypatch):
    shown: list[CodecLoad] = []

    class Gauges:
        def __init__(self, labels: dict[str, str], n_slots: int) -> None:
            assert (labels, n_slots) == ({"model_name": "tiny"}, 2)

        def show(self, load: CodecLoad) -> None:
            shown.append(load)

    monkeypatch.setattr("sglang_moss.decode.service.CodecGauges", Gauges)
    runner, own = GuardedRunner(), f"ipc://{tmp_path / 'codec'}"
    state, labels = tiny_codec().new_state(3), {"model_name": "tiny"}
    CodecService(tiny_codec(), runner, state, TOKENS, own, 1, labels, encodes_beside=beside)
    [[codes]] = encode_all(own, [waveform(3 * WINDOW_FRAMES)])
    assert codes == codes_of(waveform(3 * WINDOW_FRAMES))
    wait_for(lambda: shown[-1].references_waiting == 0)
    assert max(load.references_waiting for load in shown) == 1


def test_encoding_and_decoding_go_on_side_by_side(service, address):
    progress, rows, frames = started(service, "a", 90)
    progress.rows.extend(rows)
    service.finish("a")
    [[codes]] = encode_all(address, [waveform(6)])
    assert codes == codes_of(waveform(6))
    np.testing.assert_array_equal(frames_of(collect(service, 1)["a"]), frames)
