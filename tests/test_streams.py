"""Speech streams over a tiny codec: audio is the one-shot decoding of a request's frames, whatever runs beside it."""

import base64
import copy
import io
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
from sglang_moss.config import SpecialTokens
from sglang_moss.speech import SpeechProgress
from sglang_moss.streams import DECODE_AHEAD_FRAMES, STEP_FRAMES, Speech, StreamDecoder

N_CODES = 17  # of the tiny codec
TOKENS = special_tokens_of(3, N_CODES)
MARK = 5  # a code that only poisoned frames hold
LONG = DECODE_AHEAD_FRAMES + STEP_FRAMES + 7  # frames that take several steps


class Served:
    """Requests with the rows that they will produce, and what their streams came to."""

    def __init__(self, codec: Codec, n_slots: int, tokens: SpecialTokens = TOKENS) -> None:
        self.codec = codec
        self.tokens = tokens
        self.decoder = StreamDecoder(codec, codec.new_state(n_slots), tokens)
        self.to_come: dict[str, tuple[SpeechProgress, list[np.ndarray], np.ndarray]] = {}
        self.results: dict[str, Speech] = {}

    def open(self, rid: str, n_frames: int, n_prompt: int | None = None, poisoned: bool = False) -> None:
        seed = len(self.to_come) + 1
        prompt = None if n_prompt is None else random_frames(n_prompt, self.tokens, seed=100 + seed)
        frames = random_frames(n_frames, self.tokens, seed=seed)
        frames[frames == MARK] += 1
        frames[:, 0] = MARK if poisoned else frames[:, 0]
        progress = speech_request(self.tokens, prompt)
        self.to_come[rid] = progress, spoken_rows(progress, frames, self.tokens), frames
        self.decoder.open(rid, progress)

    def produce(self, n_rows: int) -> None:
        """Let every request produce so many rows more, and finish with its last."""
        for rid, (progress, rows, _) in self.to_come.items():
            if rows:
                progress.rows += rows[:n_rows]
                del rows[:n_rows]
                if not rows:
                    self.decoder.finish(rid)

    def step(self) -> bool:
        return self.decoder.step(lambda rid, speech: self.results.update({rid: speech}))

    def run(self, rows_a_step: int = 20) -> None:
        """Produce and decode to the end."""
        for _ in range(500):
            self.produce(rows_a_step)
            if not self.step() and not any(rows for _, rows, _ in self.to_come.values()):
                return
        raise AssertionError("the streams never end")

    def assert_whole(self, *rids: str) -> None:
        """The audio of these streams is the one-shot decoding of prompt and frames, without the prompt's samples."""
        for rid in rids:
            (progress, _, frames), speech = self.to_come[rid], self.results[rid]
            prompt = progress.request.prompt.prompt_codes
            waveform = self.codec.decode(torch.from_numpy(np.concatenate([prompt, frames]).astype(np.int64))).numpy()
            expected = waveform[len(prompt) * self.codec.config.frame_samples :]
            assert (speech.error, speech.status) == (None, HTTPStatus.OK)
            np.testing.assert_array_equal(speech.codes, frames)
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(speech.wav_base64)), dtype="int16")
            assert (rate, len(samples)) == (self.codec.config.sampling_rate, speech.n_samples)
            # Half a step of 16 bits for the rounding, and float32 noise of 1e-5: steps add up in another order.
            np.testing.assert_allclose(samples, np.clip(expected * 2**15, -(2**15), 2**15 - 1), atol=0.5 + 0.33, rtol=0)


def codec_whose_steps(do: Any, codec: Codec | None = None) -> Codec:
    """A codec of which each `decode_step` goes through `do(decode_step, state, codes, n_frames, slots)`."""
    changed = copy.copy(codec or tiny_codec())
    stock = changed.decode_step
    object.__setattr__(changed, "decode_step", lambda *operands: do(stock, *operands))
    return changed


@pytest.mark.parametrize("n_prompt", [None, 0, 1, 30])
@pytest.mark.parametrize("n_frames", [1, DECODE_AHEAD_FRAMES, LONG])
def test_audio_equals_one_shot_decoding_without_the_prompt(n_prompt, n_frames):
    served = Served(golden_codec("short"), 1, special_tokens_of(16, golden_codec("short").config.codebook_size))
    served.open("a", n_frames, n_prompt)
    served.run()
    served.assert_whole("a")


@given(
    n_slots=st.integers(1, 3),
    lengths=st.lists(st.tuples(st.integers(1, 80), st.sampled_from([None, 0, 3, 40])), min_size=1, max_size=6),
    rows_a_step=st.integers(1, 90),
)
@settings(max_examples=25, deadline=None)
def test_any_number_of_streams_over_any_number_of_slots_is_decoded_whole(n_slots, lengths, rows_a_step):
    served = Served(tiny_codec(), n_slots)
    for i, (n_frames, n_prompt) in enumerate(lengths):
        served.open(str(i), n_frames, n_prompt)
    served.run(rows_a_step)
    served.assert_whole(*map(str, range(len(lengths))))


def test_audio_is_decoded_while_rows_still_come():
    served = Served(tiny_codec(), 1)
    served.open("a", LONG, n_prompt=3)
    assert not served.step()
    served.produce(DECODE_AHEAD_FRAMES + TOKENS.n_vq)
    assert served.step()
    assert not served.results
    served.run()
    served.assert_whole("a")


def test_a_dropped_stream_makes_room_and_disturbs_nobody():
    served = Served(tiny_codec(), 2)
    for rid in ("stays", "goes", "waits"):
        served.open(rid, LONG)
    served.produce(DECODE_AHEAD_FRAMES + 10)
    served.step()
    served.decoder.drop("goes")
    served.to_come.pop("goes")
    served.run()
    assert set(served.results) == {"stays", "waits"}
    served.assert_whole("stays", "waits")


def test_a_stream_that_ends_wakes_the_one_that_waits_for_its_slot():
    served = Served(tiny_codec(), 1)
    served.open("first", DECODE_AHEAD_FRAMES)
    served.open("second", 1)
    served.produce(DECODE_AHEAD_FRAMES + TOKENS.n_vq)  # all but the end of the first, and all of the second
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


@pytest.mark.parametrize("failing_step", [0, 1, 2, 4])
def test_a_step_that_fails_once_loses_nobodys_audio(failing_step):
    calls = []

    def fail_once(decode_step, *operands):
        calls.append(operands)
        if len(calls) == failing_step + 1:
            raise RuntimeError("once")
        return decode_step(*operands)

    served = Served(codec_whose_steps(fail_once), 3)
    for rid, n_frames, n_prompt in (("a", LONG, 5), ("b", 50, None), ("c", 1, None), ("d", LONG, None)):
        served.open(rid, n_frames, n_prompt)
    served.run()
    assert len(calls) > failing_step
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
    assert (failed.status, failed.wav_base64, failed.n_samples) == (HTTPStatus.INTERNAL_SERVER_ERROR, "", 0)
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
def test_a_request_without_a_frame_ends_in_an_error_that_says_why(rows, max_new_tokens, reason, n_prompt):
    served = Served(tiny_codec(), 1)
    prompt = None if n_prompt is None else random_frames(n_prompt, TOKENS)
    progress = speech_request(TOKENS, prompt, max_new_tokens=max_new_tokens)
    progress.rows = list(rows)
    served.decoder.open("a", progress)
    served.decoder.finish("a")
    served.run()
    speech = served.results["a"]
    assert speech.error is not None
    assert speech.error.startswith("no audio: ")
    assert reason in speech.error
    assert (speech.status, speech.n_samples) == (HTTPStatus.BAD_REQUEST, 0)
