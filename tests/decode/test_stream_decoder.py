"""Speech streams over a tiny codec: audio is the one-shot decoding of a request's frames, whatever runs beside it."""

import base64
import copy
import io
import itertools
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from codec_models import golden_codec, tiny_codec
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_requests import random_frames, special_tokens_of, speech_request, spoken_rows, text_rows
from torch import Tensor

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.runner import DecoderRunner
from sglang_moss.config import SpecialTokens
from sglang_moss.decode.stream import STEP_FRAMES, SpeechPart
from sglang_moss.decode.stream_decoder import StreamDecoder, slots_for, streams_with
from sglang_moss.decode.wire import chunks_of, whole_answer
from sglang_moss.request.speech import SpeechProgress

N_CODES = 17  # of the tiny codec
TOKENS = special_tokens_of(3, N_CODES)
MARK = 5  # a code that only poisoned frames hold
AHEAD = 32  # frames that a whole answer waits for
LONG = AHEAD + STEP_FRAMES + 7  # frames that take several steps


class WatchedRunner(DecoderRunner):
    """Notes every step: the lengths of its stretches; and how often a slot was copied."""

    def __init__(self, codec: Codec, n_slots: int, n_vq: int, max_streams: int = 4) -> None:
        super().__init__(codec, codec.new_state(n_slots), n_vq, max_streams=max_streams, max_frames=STEP_FRAMES)
        self.steps: list[list[int]] = []
        self.copies: list[tuple[int, int]] = []

    def decode(self, stretches: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray | None]:
        self.steps.append([len(stretch) for stretch in stretches])
        return super().decode(stretches, slots)

    def copy_slot(self, source: int, target: int) -> None:
        self.copies.append((source, target))
        super().copy_slot(source, target)


class Served:
    """Requests with the rows that they will produce, and what their streams came to. Time passes with every step."""

    def __init__(
        self,
        codec: Codec,
        n_slots: int,
        tokens: SpecialTokens = TOKENS,
        n_voices: int = 0,
        max_streams: int = 4,
        as_on_gpu: bool = False,
    ) -> None:
        self.codec = codec
        self.tokens = tokens
        self.runner = WatchedRunner(codec, n_slots + n_voices, tokens.n_vq, max_streams)
        self.runner.pads_freely = as_on_gpu
        self.now = 0.0
        rate, frame_samples = codec.config.sampling_rate, codec.config.frame_samples
        self.decoder = StreamDecoder(
            self.runner, tokens, rate, frame_samples, n_slots, n_voices, clock=lambda: self.now
        )
        self.to_come: dict[str, tuple[SpeechProgress, list[np.ndarray], np.ndarray]] = {}
        self.live: set[str] = set()
        self.texts: dict[str, str] = {}
        self.results: dict[str, SpeechPart] = {}

    def open(
        self,
        rid: str,
        n_frames: int,
        n_prompt: int | None = None,
        poisoned: bool = False,
        voice: int | None = None,
        live: bool = False,
        chunk_frames: int = 32,
        first_frames: int | None = None,
    ) -> None:
        seed = len(self.to_come) + 1
        voice = 100 + seed if voice is None else voice
        prompt = None if n_prompt is None else random_frames(n_prompt, self.tokens, seed=voice)
        frames = random_frames(n_frames, self.tokens, seed=seed)
        frames[frames == MARK] += 1
        if prompt is not None:
            prompt[prompt == MARK] += 1
        frames[:, 0] = MARK if poisoned else frames[:, 0]
        custom = {"return_codes": True, "chunk_frames": chunk_frames, "first_frames": first_frames}
        progress = speech_request(self.tokens, prompt, custom_params=custom)
        self.to_come[rid] = progress, spoken_rows(progress, frames, self.tokens), frames
        self.live |= {rid} if live else set()
        self.decoder.open(rid, progress, live)

    def produce(self, n_rows: int, *rids: str) -> None:
        """Let requests (all, if none is named) produce so many rows more, and finish with their last."""
        for rid in rids or self.to_come:
            progress, rows, _ = self.to_come[rid]
            if rows:
                progress.rows.extend(rows[:n_rows])
                del rows[:n_rows]
                if not rows:
                    self.decoder.finish(rid)

    def step(self) -> bool:
        self.now += 0.01
        return self.decoder.step(self._sent)

    def _sent(self, rid: str, part: SpeechPart) -> None:
        assert rid not in self.results, "nothing follows the last part"
        assert part.progress is self.to_come[rid][0]
        self.texts[rid] = self.texts.get(rid, "") + part.text
        if part.is_last:
            self.results[rid] = part

    def drop(self, rid: str) -> None:
        self.decoder.drop(rid)
        self.to_come.pop(rid, None)

    def drain(self) -> None:
        """Step until there is nothing to do."""
        for _ in range(500):
            if not self.step():
                return
        raise AssertionError("the codec never rests")

    def run(self, rows_a_step: int = 20) -> None:
        """Produce and decode to the end."""
        for _ in range(500):
            self.produce(rows_a_step)
            if not self.step() and not any(rows for _, rows, _ in self.to_come.values()):
                return
        raise AssertionError("the streams never end")

    def chunks(self, rid: str) -> list[tuple[np.ndarray, dict[str, Any]]]:
        """16-bit samples and `meta_info` of every event of a stream."""
        return [(samples_of(wav, self.codec), meta) for wav, meta in chunks_of(self.texts[rid])]

    def spoken(self, rid: str) -> tuple[np.ndarray, Any]:
        """All samples and codes that a request has given."""
        if rid in self.live:
            chunks = self.chunks(rid)
            return np.concatenate([c for c, _ in chunks]), [row for _, meta in chunks for row in meta["audio_codes"]]
        meta = self.results[rid].meta
        assert meta is not None
        wav, meta = whole_answer(self.texts[rid], meta)
        return samples_of(wav, self.codec), meta["audio_codes"]

    def assert_whole(self, *rids: str) -> None:
        """The audio of these streams is the one-shot decoding of prompt and frames, without the prompt's samples."""
        for rid in rids:
            (progress, _, frames), part = self.to_come[rid], self.results[rid]
            prompt = progress.request.prompt.prompt_codes
            waveform = self.codec.decode(torch.from_numpy(np.concatenate([prompt, frames]).astype(np.int64))).numpy()
            expected = waveform[len(prompt) * self.codec.config.frame_samples :]
            assert (part.error, part.status) == (None, HTTPStatus.OK)
            samples, codes = self.spoken(rid)
            np.testing.assert_array_equal(codes, frames)
            # Half a step of 16 bits for the rounding, and float32 noise of 1e-5: steps add up in another order.
            np.testing.assert_allclose(samples, np.clip(expected * 2**15, -(2**15), 2**15 - 1), atol=0.5 + 0.33, rtol=0)


def samples_of(wav_base64: str, codec: Codec) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(wav_base64)), dtype="int16")
    assert rate == codec.config.sampling_rate
    return samples


def codec_whose_steps(do: Any, codec: Codec | None = None) -> Codec:
    """A codec of which each `decode_step` goes through `do(decode_step, state, codes, n_frames, slots)`."""
    changed = copy.copy(codec or tiny_codec())
    stock = changed.decode_step
    object.__setattr__(changed, "decode_step", lambda *operands: do(stock, *operands))
    return changed


@pytest.mark.parametrize("n_prompt", [None, 0, 1, 30])
@pytest.mark.parametrize("n_frames", [1, AHEAD, LONG])
@pytest.mark.parametrize("live", [False, True])
def test_audio_equals_one_shot_decoding_without_the_prompt(n_prompt, n_frames, live):
    served = Served(golden_codec("short"), 1, special_tokens_of(16, golden_codec("short").config.codebook_size))
    served.open("a", n_frames, n_prompt, live=live)
    served.run()
    served.assert_whole("a")


@given(data=st.data(), n_slots=st.integers(1, 4), n_voices=st.integers(0, 2))
@settings(max_examples=60)
def test_streams_are_whole_whatever_runs_beside_them_and_in_whatever_order(data, n_slots, n_voices):
    """Any interleaving of arrivals, rows, steps and leavers; few voices, so that cached states come and go."""
    served = Served(tiny_codec(), n_slots, n_voices=n_voices, as_on_gpu=data.draw(st.booleans()))
    counter = itertools.count()
    for action in data.draw(st.lists(st.sampled_from(["open", "open", "rows", "rows", "step", "drop"]), max_size=30)):
        rid = data.draw(st.sampled_from(sorted(served.to_come))) if served.to_come else None
        if action == "open":
            served.open(
                str(next(counter)),
                n_frames=data.draw(st.integers(1, 80)),
                n_prompt=data.draw(st.sampled_from([None, 0, 3, 40, 70])),
                voice=data.draw(st.integers(0, 2)),
                live=data.draw(st.booleans()),
                chunk_frames=data.draw(st.sampled_from([1, 3, 8, 32, 100])),
                first_frames=data.draw(st.sampled_from([None, 1, 5, 32])),
            )
        elif action == "step":
            served.step()
        elif rid is not None and action == "rows":
            served.produce(data.draw(st.integers(1, 60)), rid)
        elif rid is not None and rid not in served.results:
            served.drop(rid)
    served.run(rows_a_step=25)
    assert served.results.keys() >= served.to_come.keys()
    served.assert_whole(*served.to_come)


def test_audio_is_decoded_while_rows_still_come():
    served = Served(tiny_codec(), 1)
    served.open("a", LONG, n_prompt=3)
    served.drain()
    served.produce(AHEAD + TOKENS.n_vq)
    assert served.step()
    assert not served.results
    served.run()
    served.assert_whole("a")


def test_a_dropped_stream_makes_room_and_disturbs_nobody():
    served = Served(tiny_codec(), 2)
    for rid in ("stays", "goes", "waits"):
        served.open(rid, LONG)
    served.produce(AHEAD + 10)
    served.step()
    served.drop("goes")
    served.run()
    assert set(served.results) == {"stays", "waits"}
    served.assert_whole("stays", "waits")


def test_a_stream_that_ends_wakes_the_one_that_waits_for_its_slot():
    served = Served(tiny_codec(), 1)
    served.open("first", AHEAD)
    served.open("second", 1)
    served.produce(AHEAD + TOKENS.n_vq)  # all but the end of the first, and all of the second
    while served.step():
        pass
    served.produce(1)
    while served.step():  # nothing else will come that could wake the codec's thread
        pass
    served.assert_whole("first", "second")


def test_dropping_what_is_not_there_is_no_error():
    served = Served(tiny_codec(), 1)
    served.decoder.drop("nobody")
    served.open("a", 4)
    served.run()
    served.decoder.drop("a")
    served.assert_whole("a")


class FailsOnce:
    """Decoding steps of which one, counted from 0, fails."""

    def __init__(self, failing_step: int) -> None:
        self.n_calls = 0
        self._failing_step = failing_step

    def __call__(self, decode_step: Any, *operands: Any) -> Tensor:
        self.n_calls += 1
        if self.n_calls == self._failing_step + 1:
            raise RuntimeError("once")
        return decode_step(*operands)


@pytest.mark.parametrize("failing_step", [0, 1, 2, 4])
def test_a_step_that_fails_once_loses_nobodys_audio(failing_step):
    fail_once = FailsOnce(failing_step)
    served = Served(codec_whose_steps(fail_once), 3)
    for rid, n_frames, n_prompt in (("a", LONG, 5), ("b", 50, None), ("c", 1, None), ("d", LONG, None)):
        served.open(rid, n_frames, n_prompt)
    served.run()
    assert fail_once.n_calls > failing_step
    served.assert_whole("a", "b", "c", "d")


def raise_on_mark(decode_step: Any, state: Any, codes: Tensor, n_frames: Tensor, slots: Tensor) -> Tensor:
    if (codes == MARK).any():
        raise RuntimeError("poisoned")
    return decode_step(state, codes, n_frames, slots)


def nan_on_mark(decode_step: Any, state: Any, codes: Tensor, n_frames: Tensor, slots: Tensor) -> Tensor:
    samples = decode_step(state, codes, n_frames, slots)
    return samples.masked_fill((codes == MARK).flatten(1).any(1, keepdim=True), torch.nan)


@pytest.mark.parametrize("fault", [raise_on_mark, nan_on_mark])
@pytest.mark.parametrize("poisoned_at", [0, 1, 3])
@pytest.mark.parametrize("n_frames", [3, LONG])
def test_a_stream_that_always_fails_fails_alone(fault, poisoned_at, n_frames):
    served = Served(codec_whose_steps(fault), 2)
    for i in range(4):
        served.open(str(i), n_frames, poisoned=i == poisoned_at)
    served.run()
    failed = served.results.pop(str(poisoned_at))
    assert failed.error == "decoding the audio failed; the server's log says why"
    assert (failed.status, served.texts[str(poisoned_at)]) == (HTTPStatus.INTERNAL_SERVER_ERROR, "")
    assert len(served.results) == 3
    served.assert_whole(*served.results)


def test_finishing_a_stream_that_has_failed_already_is_no_error():
    served = Served(codec_whose_steps(raise_on_mark), 1)
    served.open("a", LONG, poisoned=True)
    served.produce(LONG)
    while served.step():
        pass
    assert served.results["a"].status == HTTPStatus.INTERNAL_SERVER_ERROR
    served.decoder.finish("a")
    assert not served.step()


@pytest.mark.parametrize(
    ("rows", "max_new_tokens", "reason"),
    [
        (text_rows(5, TOKENS, TOKENS.im_end), None, "the model ended its turn after 5 rows, without a whole frame"),
        (text_rows(5, TOKENS), 4, "the length was spent after 5 rows"),
        (text_rows(2, TOKENS, TOKENS.im_end), 4, "the model ended its turn after 2 rows"),
        (text_rows(3, TOKENS, TOKENS.audio_start), None, "the length was spent after 3 rows"),
    ],
)
@pytest.mark.parametrize("n_prompt", [None, 40])
@pytest.mark.parametrize("is_live", [False, True])
def test_a_request_without_a_frame_ends_in_an_error_that_says_why(rows, max_new_tokens, reason, n_prompt, is_live):
    served = Served(tiny_codec(), 1)
    prompt = None if n_prompt is None else random_frames(n_prompt, TOKENS)
    progress = speech_request(TOKENS, prompt, max_new_tokens=max_new_tokens)
    served.to_come["a"] = progress, [*rows], np.empty(0)
    served.decoder.open("a", progress, is_live)
    served.run()
    part = served.results["a"]
    assert part.error is not None
    assert part.error.startswith("no audio: ")
    assert reason in part.error
    assert (part.status, part.text) == (HTTPStatus.BAD_REQUEST, "")


@pytest.mark.parametrize("chunk_frames", [1, 2, 3, 8, 32, 100, 512])
@pytest.mark.parametrize("n_frames", [1, 2, 3, 77, 300])
@pytest.mark.parametrize("rows_a_step", [1, 7, 1000])
def test_chunks_grow_up_to_their_limit_however_the_rows_come(chunk_frames, n_frames, rows_a_step):
    served = Served(tiny_codec(), 1)
    served.open("a", n_frames, n_prompt=4, live=True, chunk_frames=chunk_frames)
    served.run(rows_a_step)
    sizes = []
    while (sent := sum(sizes)) < n_frames:
        sizes.append(min(sent or 4, chunk_frames, n_frames - sent))
    chunks, config = served.chunks("a"), tiny_codec().config
    assert [len(samples) // config.frame_samples for samples, _ in chunks] == sizes
    ends = list(itertools.accumulate(sizes))
    assert [meta["audio_frames"] for _, meta in chunks] == ends
    assert [meta["audio_seconds"] for _, meta in chunks] == [end / config.frame_rate for end in ends]
    assert [meta["chunk_start_seconds"] for _, meta in chunks] == [0.0, *(end / config.frame_rate for end in ends[:-1])]


@pytest.mark.parametrize(
    ("first_frames", "chunk_frames", "sizes"),
    [
        (1, 32, [1, 1, 2, 4, 8, 16, 32, 32, 4]),
        (2, 3, [2, 2, *[3] * 32]),
        (7, 16, [7, 7, 14, 16, 16, 16, 16, 8]),
        (30, 32, [30, 30, 32, 8]),
        (32, 8, [32, *[8] * 8, 4]),
    ],
)
@pytest.mark.parametrize("rows_a_step", [1, 1000])
def test_the_first_chunk_is_as_long_as_asked_for_and_the_samples_are_the_same(
    first_frames, chunk_frames, sizes, rows_a_step
):
    served, usual = Served(tiny_codec(), 1), Served(tiny_codec(), 1)
    served.open("a", 100, n_prompt=4, live=True, chunk_frames=chunk_frames, first_frames=first_frames)
    usual.open("a", 100, n_prompt=4, live=True)
    for each in (served, usual):
        each.run(rows_a_step)
        each.assert_whole("a")
    assert [len(samples) // tiny_codec().config.frame_samples for samples, _ in served.chunks("a")] == sizes


@pytest.mark.parametrize(("n_frames", "rows_a_step"), [(20, 1), (20, 1000), (2, 1)])
def test_a_first_chunk_is_marked_by_the_row_that_filled_it(n_frames, rows_a_step):
    served = Served(tiny_codec(), 1)
    served.open("a", n_frames, live=True, first_frames=3)
    progress = served.to_come["a"][0]
    progress.marks = {}
    progress.accepted = [float(i) for i in range(len(served.to_come["a"][1]))]
    served.run(rows_a_step)
    opening, n_vq = 1, TOKENS.n_vq
    n_rows = opening + 3 + n_vq - 1 if n_frames > 3 else len(progress.accepted)
    assert progress.marks["frames"] == progress.accepted[n_rows - 1]
    assert progress.marks["frames"] <= progress.marks["codec"] <= progress.marks["decoded"]


def test_a_chunk_leaves_with_the_row_that_fills_it():
    served = Served(tiny_codec(), 1)
    served.open("a", 20, live=True, chunk_frames=4)
    counts = []
    while served.to_come["a"][1]:
        served.produce(1)
        served.drain()
        counts.append(len(served.chunks("a")) if "a" in served.texts else 0)
    filled = [counts.index(n) + 1 for n in range(1, 6)]
    opening, n_vq = 1, TOKENS.n_vq  # <audio_start>; frame t is whole with row t + n_vq - 1 after it
    assert filled == [opening + n + n_vq - 1 for n in (4, 8, 12, 16, 20)]


def test_a_long_answer_leaves_in_pieces_and_is_the_file_of_all_its_samples():
    served = Served(golden_codec("short"), 1, special_tokens_of(16, golden_codec("short").config.codebook_size))
    served.open("a", 600)
    served.produce(500)
    served.drain()
    assert len(served.texts["a"]) >= 1_000_000
    assert "a" not in served.results
    served.run(500)
    served.assert_whole("a")


def test_the_prompt_audio_is_decoded_before_the_first_frame_and_then_known():
    served = Served(tiny_codec(), 2, n_voices=1)
    served.open("first", 5, n_prompt=STEP_FRAMES + 10, voice=1)
    served.drain()
    assert served.runner.steps == [[STEP_FRAMES], [10]]
    assert not served.texts
    served.open("second", 5, n_prompt=STEP_FRAMES + 10, voice=1)
    served.run()
    served.assert_whole("first", "second")
    assert sum(map(sum, served.runner.steps)) == STEP_FRAMES + 10 + 5 + 5
    assert served.runner.copies == [(1, 2), (2, 0)]


def test_streams_that_bring_the_same_new_voice_decode_it_once():
    served = Served(tiny_codec(), 4, n_voices=1)
    for rid in ("a", "b", "c"):
        served.open(rid, 5, n_prompt=20, voice=1, live=True)
    served.run()
    served.assert_whole("a", "b", "c")
    assert sum(map(sum, served.runner.steps)) == 20 + 3 * 5


def test_a_voice_whose_first_stream_leaves_is_decoded_by_the_next():
    served = Served(tiny_codec(), 4, n_voices=1)
    for rid in ("leaves", "stays"):
        served.open(rid, 5, n_prompt=STEP_FRAMES + 10, voice=1)
    served.step()
    served.drop("leaves")
    served.run()
    served.assert_whole("stays")


def test_the_least_recently_used_voice_makes_room():
    served = Served(tiny_codec(), 1, n_voices=2)
    for i, voice in enumerate([1, 2, 1, 3, 1, 2]):
        served.open(str(i), 3, n_prompt=8, voice=voice)
        served.run()
    served.assert_whole(*map(str, range(6)))
    primed = sum(map(sum, served.runner.steps)) - 6 * 3
    assert primed == 4 * 8, "voices 1, 2, 3, and 2 again"


@pytest.mark.parametrize("as_on_gpu", [False, True])
def test_a_first_chunk_waits_for_no_long_stretch_and_is_not_padded_to_one(as_on_gpu: bool):
    served = Served(tiny_codec(), 8, as_on_gpu=as_on_gpu)
    for i in range(4):
        served.open(f"whole {i}", 200)
    served.produce(150)
    served.open("heard", 50, live=True)
    served.produce(1 + 4 + TOKENS.n_vq - 1, "heard")
    served.step()
    assert served.runner.steps == [[4]]
    assert len(served.chunks("heard")) == 1
    served.step()
    assert served.runner.steps[1:] == [[STEP_FRAMES] * 4]  # of one length: as many as a step takes
    served.run()
    served.assert_whole("heard", *(f"whole {i}" for i in range(4)))


def with_short_chunks(n_first: int, n_later: int, as_on_gpu: bool = True) -> Served:
    """Streams whose first chunk of 4 frames has just been filled, beside others that are to have one of 12."""
    served = Served(tiny_codec(), 64, max_streams=64, as_on_gpu=as_on_gpu)
    later = [f"later {i}" for i in range(n_later)]
    for rid in later:
        served.open(rid, 50, live=True, chunk_frames=4)
    served.produce(1 + 4 + TOKENS.n_vq - 1)
    served.drain()
    served.produce(12)
    first = [f"first {i}" for i in range(n_first)]
    for rid in first:
        served.open(rid, 50, live=True)
    served.produce(1 + 4 + TOKENS.n_vq - 1, *first)
    served.runner.steps.clear()
    served.step()
    return served


def test_where_padding_is_free_short_stretches_share_a_step_whatever_their_lengths():
    served = with_short_chunks(1, 3)
    assert served.runner.steps == [[4, 12, 12, 12]]
    served.run()
    served.assert_whole("first 0", *(f"later {i}" for i in range(3)))
    alone = with_short_chunks(1, 3, as_on_gpu=False)
    assert alone.runner.steps == [[4]]


def test_a_first_chunk_waits_for_no_step_of_the_largest_size():
    served = with_short_chunks(3, 32)
    assert served.runner.steps == [[4] * 3 + [12] * 13]  # 16 times 16 frames, padding and all: half of 512
    served.step()
    assert served.runner.steps[1:] == [[12] * 19]


def beside_one_far_ahead(n_dry: int, as_on_gpu: bool = False) -> Served:
    """After a step for which a stream that runs dry has had so many frames to decode, and one far ahead four."""
    served = Served(tiny_codec(), 8, as_on_gpu=as_on_gpu)
    for rid in ("ahead", "dry"):
        served.open(rid, 200, live=True, chunk_frames=4)
    served.produce(1 + 30 + TOKENS.n_vq - 1, "ahead")
    served.produce(1 + 2 + TOKENS.n_vq - 1, "dry")
    served.drain()
    served.produce(4, "ahead")
    served.produce(n_dry, "dry")
    served.runner.steps.clear()
    served.step()
    return served


def test_where_a_long_stretch_is_due_first_no_short_one_is_padded_to_it():
    served = beside_one_far_ahead(24, as_on_gpu=True)
    assert served.runner.steps == [[24]]
    served.run()
    served.assert_whole("ahead", "dry")


def test_who_tops_a_step_up_takes_nobody_elses_place():
    served = with_short_chunks(20, 32)
    served.step()
    assert served.runner.steps == [[4] * 20, [12] * 32]  # as many steps as without mixing


def test_what_is_heard_goes_before_what_is_not_and_keeps_nobody_waiting_for_ever():
    served = Served(tiny_codec(), 8)
    served.open("whole", 3 * STEP_FRAMES)
    served.produce(1000)
    waited_s = 0
    while "whole" not in served.results:
        rid = f"heard {len(served.to_come)}"
        served.open(rid, 2, live=True)
        served.produce(1000, rid)
        n_steps = len(served.runner.steps)
        served.step()
        assert len(served.runner.steps) == n_steps + 1
        served.now += 1
        waited_s += 1
        assert waited_s < 100
    assert waited_s > 20
    served.run()
    served.assert_whole(*served.to_come)


def test_so_many_slots_are_those_of_the_most_streams_that_they_serve():
    for n_slots in range(1, 300):
        most = streams_with(n_slots)
        assert slots_for(most) <= n_slots < slots_for(most + 1)


@pytest.mark.parametrize("n_streams", [1, 2, 7, 8, 128, 256])
def test_with_slots_for_so_many_streams_none_of_them_waits_for_one(n_streams: int):
    served = Served(tiny_codec(), slots_for(n_streams))
    for i in range(n_streams):
        served.open(f"{i}", 60, live=True)
    served.produce(1 + 4 + TOKENS.n_vq - 1)  # all but their ends
    served.step()
    assert (served.decoder.n_decoding, served.decoder.n_waiting) == (n_streams, 0)


def test_a_stream_says_until_when_its_listener_is_supplied():
    served = Served(tiny_codec(), 2)
    served.open("heard", 40, live=True)
    served.open("whole", 40)
    heard, whole = (served.to_come[rid][0] for rid in ("heard", "whole"))
    served.produce(1 + 3 + TOKENS.n_vq - 1)
    served.drain()
    assert heard.heard_until is None
    served.produce(1)
    served.step()
    first_sent = served.now
    frame_s = served.codec.config.frame_samples / served.codec.config.sampling_rate
    assert heard.heard_until == pytest.approx(first_sent + 4 * frame_s)
    served.run()
    assert heard.heard_until == pytest.approx(first_sent + 32 * frame_s)  # the last frames leave with the end
    assert whole.heard_until is None


def test_who_has_less_left_to_play_goes_first():
    served = beside_one_far_ahead(12)  # both can fill chunks, of different lengths, so that they share no step
    assert served.runner.steps == [[12]]
    served.run()
    served.assert_whole("ahead", "dry")


@pytest.mark.parametrize("n_slots", [1, 2, 3, 16])
def test_streams_that_end_get_slots_although_new_ones_come_all_the_time(n_slots):
    served = Served(tiny_codec(), n_slots)
    for i in range(3 * n_slots):
        served.open(f"runs {i}", 400, live=i % 2 == 0)
    served.produce(100)
    served.drain()
    served.open("ends", 40)
    served.produce(1000, "ends")
    for i in range(200):
        served.open(f"new {i}", 2, live=True)
        served.produce(1000, f"new {i}")
        if i % 10 == 0:
            served.produce(100)
        served.step()
        if "ends" in served.results:
            break
    assert "ends" in served.results
    served.run(200)
    served.assert_whole(*served.to_come)


def test_a_step_holds_no_more_streams_than_the_runner_takes():
    served = Served(tiny_codec(), 9)
    for i in range(9):
        served.open(str(i), 40)
    served.produce(1000)
    served.run()
    assert max(len(step) for step in served.runner.steps) == 4
    served.assert_whole(*map(str, range(9)))


@pytest.mark.parametrize("failing_step", range(6))
@pytest.mark.parametrize("chunk_frames", [1, 8, 100])
def test_what_has_been_heard_is_not_heard_again_after_a_step_that_failed(failing_step, chunk_frames):
    fail_once = FailsOnce(failing_step)
    served = Served(codec_whose_steps(fail_once), 2, n_voices=1)
    for rid in ("a", "b"):
        served.open(rid, LONG, n_prompt=5, voice=1, live=True, chunk_frames=chunk_frames)
    served.run()
    served.assert_whole("a", "b")


def test_every_row_is_looked_at_once_and_every_frame_decoded_once(monkeypatch):
    """An hour of speech costs an hour of work, not more and more of it."""
    served = Served(tiny_codec(), 1)
    served.open("a", 3_000, live=True)
    progress = served.to_come["a"][0]
    looked_at: list[int] = []
    stock = type(progress.rows).__getitem__

    def count(rows: Any, index: Any) -> np.ndarray:
        found = stock(rows, index)
        looked_at.append(len(found) if isinstance(index, slice) else 1)
        return found

    monkeypatch.setattr(type(progress.rows), "__getitem__", count)
    n_steps = 0
    while served.to_come["a"][1]:
        served.produce(1)
        served.step()
        n_steps += 1
    served.run()
    assert sum(map(sum, served.runner.steps)) == 3_000
    # Rows are read twice, as text ids and as codes with the n_vq - 1 before them; frames once or twice more.
    assert sum(looked_at) < 8 * 3_000
    assert len(looked_at) < n_steps, "rows that fill no chunk are not looked at"
    served.assert_whole("a")


def test_the_next_free_slot_is_for_what_is_heard():
    served = Served(tiny_codec(), 1)
    for rid, live in (("first", False), ("waits", False), ("heard", True)):
        served.open(rid, 100, live=live)
        served.produce(60, rid)
        served.drain()
    assert not served.texts
    served.produce(1000, "first")
    served.drain()
    assert set(served.results) == {"first"}
    assert served.chunks("heard")
    served.run()
    served.assert_whole("first", "waits", "heard")


def test_running_whole_answers_leave_slots_to_what_is_heard_and_both_leave_some_to_what_has_ended():
    served = Served(tiny_codec(), 8)
    for i in range(12):
        served.open(f"runs {i}", 200)
    served.produce(100)
    served.drain()
    for i in range(4):
        served.open(f"heard {i}", 200, live=True)
        served.produce(100, f"heard {i}")
    served.drain()
    assert {rid for rid in served.texts if rid in served.live} == {"heard 0"}
    served.open("ends", 50)
    served.produce(1000, "ends")
    served.drain()
    assert set(served.results) == {"ends"}
    served.run()
    served.assert_whole(*served.to_come)
