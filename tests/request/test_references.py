"""Codes of references: encoded once, remembered by content within bounds, and never lost to somebody else's leaving."""

import asyncio
import base64
import hashlib
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglang_moss.audio import local_files
from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.preparation import concatenate_references, prepare_reference
from sglang_moss.audio.sources import Source, SourcePolicy, read_source
from sglang_moss.audio.wav import wav_bytes
from sglang_moss.errors import BadReference, MossError, ServerBusy
from sglang_moss.request import preparation, references
from sglang_moss.request.backlog import Backlog
from sglang_moss.request.codec_client import ENTRY_BYTES, CodeCache
from sglang_moss.request.preparation import PreparationOrder
from sglang_moss.request.prompt import choose_mode
from sglang_moss.request.record import RequestRecord, open_record
from sglang_moss.request.references import ReferenceEncoder

RATE = 8000
FRAME = 40
CODES = np.arange(6, dtype=np.int32).reshape(3, 2)
E = CODES.nbytes + ENTRY_BYTES

CLONE = choose_mode("voice_clone", 1)
CONTINUE = choose_mode("continuation", 1)
BOTH = choose_mode("voice_clone_and_continuation", 1)


class Encoding:
    """An `encode` for the cache: counts its calls and answers when it is let go."""

    def __init__(self, codes: np.ndarray = CODES, error: Exception | None = None) -> None:
        self.n_calls = 0
        self.may_answer = asyncio.Event()
        self._codes, self._error = codes, error

    async def __call__(self) -> np.ndarray:
        self.n_calls += 1
        await self.may_answer.wait()
        if self._error is not None:
            raise self._error
        return self._codes


class FakeCodec:
    """In the place of `CodecClient`, and causal like it: a frame's code is a sum over the waveform up to its end."""

    def __init__(self) -> None:
        self.encoded: list[np.ndarray] = []
        self.error: Exception | None = None

    async def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.encoded += waveforms
        return [fake_codes(waveform) for waveform in waveforms]


def fake_codes(waveform: np.ndarray) -> np.ndarray:
    sums = np.cumsum(waveform.astype(np.float64) * np.arange(len(waveform)))[FRAME - 1 :: FRAME]
    return np.stack([np.arange(len(sums)), 1000 * sums], axis=1).astype(np.int32)


def clip(seed: int, n_samples: int = 400) -> bytes:
    samples = np.random.default_rng(seed).normal(0, 3000, n_samples)
    return wav_bytes(samples.astype(np.int16), RATE)


def prepared(*clips: bytes) -> np.ndarray:
    waveforms = [prepare_reference(data, RATE, ReferenceLimits(), 0) for data in clips]
    return concatenate_references(waveforms)


def with_encoder(session: Callable[[ReferenceEncoder, FakeCodec], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        codec: Any = FakeCodec()
        await session(
            ReferenceEncoder(codec, RATE, FRAME, ReferenceLimits(), SourcePolicy(), cache_bytes=100_000), codec
        )

    asyncio.run(run())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_codes_that_many_ask_for_at_once_are_encoded_once():
    async def session() -> None:
        cache, encoding = CodeCache(1000), Encoding()
        waiters = [asyncio.create_task(cache.get(b"key", encoding)) for _ in range(5)]
        await settle()
        encoding.may_answer.set()
        answers = await asyncio.gather(*waiters)
        assert encoding.n_calls == 1
        assert [answer.was_cached for answer in answers] == [False] * 5
        later = await cache.get(b"key", encoding)
        assert (encoding.n_calls, later.was_cached) == (1, True)
        assert all(answer.codes is CODES for answer in [*answers, later])

    asyncio.run(session())


def test_a_waiter_that_leaves_does_not_cancel_the_others():
    async def session() -> None:
        cache, encoding = CodeCache(1000), Encoding()
        leaves, stays = (asyncio.create_task(cache.get(b"key", encoding)) for _ in range(2))
        await settle()
        leaves.cancel()
        await settle()
        assert leaves.cancelled()
        encoding.may_answer.set()
        assert (await stays).codes is CODES
        assert encoding.n_calls == 1

    asyncio.run(session())


def test_an_encoding_that_nobody_waits_for_is_given_up_and_started_anew():
    async def session() -> None:
        cache, given_up, encoding = CodeCache(1000), Encoding(), Encoding()
        leaving = [asyncio.create_task(cache.get(b"key", given_up)) for _ in range(2)]
        await settle()
        for leaves in leaving:
            leaves.cancel()
        await settle()
        given_up.may_answer.set()
        encoding.may_answer.set()
        answer = await cache.get(b"key", encoding)
        assert (answer.was_cached, given_up.n_calls, encoding.n_calls) == (False, 1, 1)
        assert (await cache.get(b"key", encoding)).was_cached

    asyncio.run(session())


def test_a_failure_reaches_all_who_wait_and_is_not_kept():
    async def session() -> None:
        cache, failing, working = CodeCache(1000), Encoding(error=MossError("broken")), Encoding()
        waiters = [asyncio.create_task(cache.get(b"key", failing)) for _ in range(3)]
        await settle()
        failing.may_answer.set()
        answers = await asyncio.gather(*waiters, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["broken"] * 3
        working.may_answer.set()
        again = await cache.get(b"key", working)
        assert (failing.n_calls, working.n_calls, again.was_cached) == (1, 1, False)

    asyncio.run(session())


@pytest.mark.parametrize(
    ("max_bytes", "kept"),
    [(3 * E, "acd"), (3 * E - 1, "cd"), (2 * E, "cd"), (E, "d"), (E - 1, ""), (0, ""), (4 * E, "abcd")],
)
def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago(max_bytes, kept):
    async def session() -> None:
        cache = CodeCache(max_bytes)
        for key in "abacd":  # a second time: from now on "b" is the oldest
            encoding = Encoding(CODES.copy())
            encoding.may_answer.set()
            assert (await cache.get(key.encode(), encoding)).codes.tolist() == CODES.tolist()
        unused = Encoding(error=MossError("not kept"))
        unused.may_answer.set()
        answers = await asyncio.gather(*(cache.get(key.encode(), unused) for key in "abcd"), return_exceptions=True)
        assert "".join(k for k, a in zip("abcd", answers, strict=True) if not isinstance(a, MossError)) == kept

    asyncio.run(session())


@pytest.mark.parametrize("mode", [CLONE, CONTINUE, BOTH], ids=lambda mode: mode.name)
def test_a_mode_gets_the_codes_that_its_prompt_needs(mode):
    async def session(encoder: ReferenceEncoder, codec: FakeCodec) -> None:
        clips = [clip(1), clip(2, 333)]
        codes = await encoder.encode(clips, mode)
        assert [c.tolist() for c in codes.clips] == [fake_codes(prepared(c)).tolist() for c in clips if mode.clones]
        expected = fake_codes(prepared(*clips)).tolist() if mode.continues else None
        assert (codes.prompt_audio if codes.prompt_audio is None else codes.prompt_audio.tolist()) == expected
        # Where both are wanted, the prompt audio begins with the first clip.
        assert len(codec.encoded) == {CLONE: 2, CONTINUE: 1, BOTH: 2}[mode]
        assert not codes.all_cached
        assert not (await encoder.encode((), choose_mode("generation", 0))).all_cached
        again = await encoder.encode(clips, mode)
        assert again.all_cached
        assert len(codec.encoded) == {CLONE: 2, CONTINUE: 1, BOTH: 2}[mode]

    with_encoder(session)


def test_prompt_audio_is_known_by_its_clips_and_their_order():
    async def session(encoder: ReferenceEncoder, codec: FakeCodec) -> None:
        a, b, c = clip(1), clip(2), clip(3)
        seen = []
        for clips in ([a, b], [b, a], [a, c], [a], [a, a], [a, b, c]):
            codes = await encoder.encode(clips, CONTINUE)
            assert not codes.all_cached
            assert codes.prompt_audio is not None
            assert codes.prompt_audio.tolist() == fake_codes(prepared(*clips)).tolist()
            seen.append(tuple(codes.prompt_audio.ravel()))
        assert len(set(seen)) == len(seen) == len(codec.encoded)
        assert (await encoder.encode([b, a], CONTINUE)).all_cached

    with_encoder(session)


def test_one_clip_serves_as_reference_and_as_prompt_audio_with_one_encoding():
    async def session(encoder: ReferenceEncoder, codec: FakeCodec) -> None:
        codes = await encoder.encode([clip(1)], BOTH)
        assert codes.clips[0] is codes.prompt_audio
        assert len(codec.encoded) == 1

    with_encoder(session)


def test_a_bad_clip_fails_no_other_request_that_shares_the_first_clip():
    async def session(encoder: ReferenceEncoder, _codec: FakeCodec) -> None:
        good, bad = [clip(1), clip(2)], [clip(1), b"noise"]
        answers = await asyncio.gather(
            *(encoder.encode(clips, BOTH) for clips in (bad, good, bad, good)), return_exceptions=True
        )
        assert [type(answer).__name__ for answer in answers] == ["BadReference", "ReferenceCodes"] * 2

    with_encoder(session)


def test_requests_at_the_same_time_share_what_they_have_in_common():
    async def session(encoder: ReferenceEncoder, codec: FakeCodec) -> None:
        requests = [[clip(1), clip(2)], [clip(2), clip(1)], [clip(1), clip(2)]]
        await asyncio.gather(*(encoder.encode(clips, BOTH) for clips in requests))
        assert len(codec.encoded) == 3  # two orders, and the second clip of the first one

    with_encoder(session)


def test_a_bad_reference_is_named_by_its_position_and_not_remembered():
    async def session(encoder: ReferenceEncoder, codec: FakeCodec) -> None:
        for clips, position in (([b"noise", clip(1)], 1), ([clip(1), clip(2), b"noise"], 3)):
            with pytest.raises(BadReference, match=f"^reference {position}: "):
                await encoder.encode(clips, BOTH)
        assert (await encoder.encode([clip(1), clip(2)], CLONE)).clips[0].tolist() == fake_codes(
            prepared(clip(1))
        ).tolist()
        assert len(codec.encoded) <= 3

    with_encoder(session)


def test_a_failure_of_the_codec_is_the_requests_and_not_remembered():
    async def session(encoder: ReferenceEncoder, codec: FakeCodec) -> None:
        codec.error = MossError("the codec failed")
        with pytest.raises(MossError, match="the codec failed"):
            await encoder.encode([clip(1), clip(2)], BOTH)
        codec.error = None
        assert len((await encoder.encode([clip(1), clip(2)], BOTH)).clips) == 2

    with_encoder(session)


def test_a_request_that_leaves_takes_no_codes_from_another_with_the_same_clips():
    async def session(encoder: ReferenceEncoder, _codec: FakeCodec) -> None:
        leaves, stays = (asyncio.create_task(encoder.encode([clip(1), clip(2)], BOTH)) for _ in range(2))
        await settle()
        leaves.cancel()
        codes = await stays
        assert len(codes.clips) == 2
        assert codes.prompt_audio is not None

    with_encoder(session)


def test_hashing_and_joining_of_long_clips_run_off_the_event_loop(monkeypatch):
    threads: dict[str, set[int]] = {"hash": set(), "join": set()}

    def sha256(data: bytes) -> Any:
        threads["hash"].add(threading.get_ident())
        return hashlib.new("sha256", data)

    def join(waveforms: Sequence[np.ndarray]) -> np.ndarray:
        threads["join"].add(threading.get_ident())
        return concatenate_references(waveforms)

    async def session(encoder: ReferenceEncoder, _codec: FakeCodec) -> None:
        await encoder.encode([clip(1), clip(2)], BOTH)

    monkeypatch.setattr(references, "_SHORT_BYTES", 0)
    monkeypatch.setattr(references.hashlib, "sha256", sha256)
    monkeypatch.setattr(references, "concatenate_references", join)
    with_encoder(session)
    assert all(seen and threading.get_ident() not in seen for seen in threads.values())


def test_who_would_wait_too_long_is_refused_but_for_codes_that_are_known_or_coming():
    async def session(encoder: ReferenceEncoder, _codec: FakeCodec) -> None:
        await encoder.encode([clip(1)], BOTH)
        record = RequestRecord()
        open_record(record)
        with encoder._backlog.waiting(10_000):
            with pytest.raises(ServerBusy, match="try again later") as busy:
                await encoder.encode([clip(2)], BOTH)
            assert (await encoder.encode([clip(1)], BOTH)).all_cached
        assert record.retry_after == busy.value.retry_after == 30
        assert len((await encoder.encode([clip(2)], BOTH)).clips) == 1
        assert encoder._backlog.audio_s == 0

    with_encoder(session)


def test_the_codecs_speed_decides_who_waits_too_long():
    now = 0.0
    backlog = Backlog(lambda: now)
    with backlog.waiting(1000):  # nobody is refused for his own length
        with pytest.raises(ServerBusy), backlog.waiting(1):
            pass
        for _ in range(100):
            with backlog.encoding(50):
                now += 0.1
        assert backlog.wait_s == pytest.approx(2, rel=0.1)
        with backlog.waiting(7000), pytest.raises(ServerBusy):
            backlog.check()
        failing = backlog.encoding(1)
        failing.__enter__()
        now += 1000
        assert not failing.__exit__(MossError, MossError("broken"), None)
        with backlog.encoding(50), backlog.encoding(50):
            now += 0.2  # side by side
        assert backlog.wait_s == pytest.approx(2, rel=0.1)
    assert backlog.audio_s == 0


@pytest.mark.parametrize(
    ("as_it_came", "codes_known", "others_go_on"),
    [(True, True, False), (False, True, True), (True, False, True), (False, False, True)],
    ids=["known", "to be read", "codes forgotten", "new"],
)
def test_others_are_prepared_while_clips_are_read_or_encoded_and_after_one_whose_codes_are_known(
    as_it_came, codes_known, others_go_on, monkeypatch
):
    monkeypatch.setattr(preparation, "_AT_A_TIME", 1)
    monkeypatch.setattr(preparation, "_LONGEST_S", 60.0)

    async def session(encoder: ReferenceEncoder, _codec: FakeCodec) -> None:
        clips = [clip(1), clip(2)]
        await encoder.encode(clips, BOTH)
        if not codes_known:
            encoder._cache = CodeCache(100_000)
        order = PreparationOrder()
        record = RequestRecord(preparation=order.preparation())
        open_record(record)
        await record.preparation.begin()
        other = order.preparation()
        next_one = asyncio.create_task(other.begin())
        await encoder.encode(clips if as_it_came else [base64.b64encode(data).decode() for data in clips], BOTH)
        await asyncio.sleep(0)
        assert next_one.done() == others_go_on
        record.preparation.end()
        await next_one
        other.end()

    with_encoder(session)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """All sources that were read, as they come."""
    found: list[object] = []

    async def counted(source: object, policy: SourcePolicy, position: int) -> Source:
        found.append(source)
        return await read_source(source, policy, position)

    monkeypatch.setattr(references, "read_source", counted)
    return found


def test_a_clip_that_comes_as_it_came_is_not_read_again(read: list[object]):
    async def session(encoder: ReferenceEncoder, _codec: FakeCodec) -> None:
        texts = [base64.b64encode(clip(seed)).decode() for seed in range(3)]
        first = await encoder.encode(texts[:2], BOTH)
        again = await encoder.encode([text.encode().decode() for text in texts[:2]], BOTH)
        assert (read, again.all_cached) == (texts[:2], True)
        for one, other in zip([*first.clips, first.prompt_audio], [*again.clips, again.prompt_audio], strict=True):
            assert other is one
        mixed = await encoder.encode([texts[2], texts[0]], CLONE)  # one is not known: both are decoded
        assert read == [*texts, texts[0]]
        np.testing.assert_array_equal(mixed.clips[1], first.clips[0])
        encoder._cache = CodeCache(100_000)  # codes were forgotten
        anew = await encoder.encode(texts[:2], BOTH)
        assert (sorted(map(str, read[4:])), anew.all_cached) == (sorted(texts[:2]), False)
        np.testing.assert_array_equal(anew.prompt_audio, first.prompt_audio)
        n_read = len(read)
        await encoder.encode([clip(0)], CLONE)
        await encoder.encode([clip(0)], CLONE)
        assert len(read) == n_read + 1

    with_encoder(session)


def with_files(folder: Path, session: Callable[[ReferenceEncoder], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        codec: Any = FakeCodec()
        policy = SourcePolicy(path_root=folder)
        await session(ReferenceEncoder(codec, RATE, FRAME, ReferenceLimits(), policy, cache_bytes=100_000))

    asyncio.run(run())


async def check_files(encoder: ReferenceEncoder, folder: Path, seed: int) -> None:
    """That both ways to name a clip give the codes of the one with this seed."""
    for source in (str(folder / "clip.wav"), f"file://{folder}/clip.wav"):
        [codes] = (await encoder.encode([source], CLONE)).clips
        np.testing.assert_array_equal(codes, fake_codes(prepared(clip(seed))))


def test_a_file_just_written_is_read_every_time(tmp_path: Path, read: list[object]):
    async def session(encoder: ReferenceEncoder) -> None:
        for seed in (1, 2):
            (tmp_path / "clip.wav").write_bytes(clip(seed))
            await check_files(encoder, tmp_path, seed)
        assert len(read) == 4

    with_files(tmp_path, session)


def test_a_file_left_alone_is_read_once(tmp_path: Path, read: list[object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_files, "_SETTLED_NS", 0)

    async def session(encoder: ReferenceEncoder) -> None:
        path = tmp_path / "clip.wav"
        path.write_bytes(clip(1))
        await check_files(encoder, tmp_path, 1)
        (tmp_path / "link.wav").symlink_to(path)
        await encoder.encode([str(tmp_path / "link.wav")], CLONE)
        assert len(read) == 1
        written = path.stat()
        time.sleep(0.02)  # a tick of the file system's clock
        path.write_bytes(clip(2))  # of the same length, and its time set back
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
        await check_files(encoder, tmp_path, 2)
        other = tmp_path / "other.wav"
        other.write_bytes(clip(3))
        other.replace(path)
        await check_files(encoder, tmp_path, 3)
        assert len(read) == 3

    with_files(tmp_path, session)


def test_a_file_that_changes_while_it_is_looked_at_lends_no_voice_its_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(local_files, "_SETTLED_NS", 0)
    path = tmp_path / "clip.wav"

    async def stale(*_: object) -> local_files.FileVersion | None:
        return version

    path.write_bytes(clip(1))
    version = local_files.version_of(str(path), tmp_path)
    assert version is not None

    async def session(encoder: ReferenceEncoder) -> None:
        await check_files(encoder, tmp_path, 1)
        encoder._cache = CodeCache(100_000)  # codes were forgotten
        path.write_bytes(clip(2))
        with monkeypatch.context() as at_the_last_look:
            at_the_last_look.setattr(references, "file_version", stale)
            with pytest.raises(BadReference, match="reference 1: the file has changed just now"):
                await encoder.encode([str(path)], CLONE)
        await check_files(encoder, tmp_path, 2)

    with_files(tmp_path, session)


def test_of_files_a_bounded_number_is_remembered(tmp_path: Path, read: list[object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_files, "_SETTLED_NS", 0)
    monkeypatch.setattr(references, "_FILES", 2)
    paths = [str(tmp_path / f"{seed}.wav") for seed in range(3)]
    for seed, path in enumerate(paths):
        Path(path).write_bytes(clip(seed))

    async def session(encoder: ReferenceEncoder) -> None:
        for path in [*paths[:2], paths[0], paths[2], paths[0], paths[1]]:
            await encoder.encode([path], CLONE)
        assert read == [*paths[:2], paths[2], paths[1]]

    with_files(tmp_path, session)
