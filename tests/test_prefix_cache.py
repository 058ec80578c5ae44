"""Prefix cache on SGLang's own pools: prompts are shared, generated rows never are, and all KV cache is given back."""

import sys
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sglang.srt.managers.schedule_batch import FINISH_LENGTH, Req
from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator, TokenToKVPoolAllocator
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.common import checkpoint_kv_cache, release_kv_cache
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
from sglang.srt.runtime_context import create_context, use_context
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs
from speech_requests import random_frames, special_tokens_of, speech_request, text_rows

from sglang_moss.prefix_cache import PromptRadixCache
from sglang_moss.request import speech
from sglang_moss.request.speech import row_keys

pytestmark = pytest.mark.wide

TOKENS = special_tokens_of(3, 9)
GEN = TOKENS.gen_slot
N_KV = 1280  # places; whole pages of every size
PAGE_SIZES = [1, 4, 16, 64]


def keys_of(rows: np.ndarray) -> array:
    return row_keys(rows.astype(np.int32), TOKENS.pad_code)


def prompt(n_frames: int, seed: int = 0, n_words: int = 3) -> array:
    return keys_of(speech_request(TOKENS, random_frames(n_frames, TOKENS, seed), n_words).request.prompt.rows)


class Engine:
    """The scheduler's bookkeeping of KV cache: SGLang's own steps and pools around a `PromptRadixCache`, no model."""

    def __init__(self, page_size: int = 1) -> None:
        self.page_size = page_size
        self.slots = ReqToTokenPool(size=4, max_context_len=256, device="cpu", enable_memory_saver=False)
        kvcache: Any = None
        if page_size == 1:
            self.kv: Any = TokenToKVPoolAllocator(N_KV, torch.float32, "cpu", kvcache, need_sort=False)
        else:
            self.kv = PagedTokenToKVPoolAllocator(N_KV, page_size, torch.float32, "cpu", kvcache, need_sort=False)
        self.cache = PromptRadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=self.slots,
                token_to_kv_pool_allocator=self.kv,
                page_size=page_size,
                tree_components=(ComponentType.FULL,),
            )
        )
        self.live: list[Req] = []

    def request(self, keys: array) -> Req:
        return Req("rid", "", array("q", keys), SamplingParams(max_new_tokens=50))

    def prefill(self, req: Req, chunk: int = 1000) -> int:
        """Prefill a request to the end, chunk by chunk, and give it its next row; how many rows the cache knew.

        As SGLang's scheduler has it, every chunk but the last ends with a page.
        """
        req.init_next_round_input(self.cache)
        n_known = req.prefix_len
        self.live.append(req)
        chunk = -(-chunk // self.page_size) * self.page_size
        while True:
            start, total = req.prefix_len, len(req.full_untruncated_fill_ids)
            req.extend_end = min(start + chunk, total)
            self._take_slot(req)
            self._allocate(req, start, req.extend_end)
            known = self.rows_of(req)[:start]
            checkpoint_kv_cache(req, self.cache)
            assert self.rows_of(req)[:start] == known, "rows that were known stay where they are"
            assert req.prefix_len == req.extend_end
            if req.extend_end == total:
                req.output_ids.append(GEN)
                return n_known
            req.init_next_round_input()

    def decode(self, req: Req) -> None:
        self._allocate(req, req.kv.kv_committed_len, req.kv.kv_committed_len + 1)
        req.output_ids.append(GEN)

    def release(self, req: Req) -> None:
        """What SGLang does when a request finishes."""
        req.finished_reason = FINISH_LENGTH(length=len(req.output_ids))
        release_kv_cache(req, self.cache, checkpoint=True)
        self.live.remove(req)

    def retract(self, req: Req) -> None:
        release_kv_cache(req, self.cache, checkpoint=False)
        req.reset_for_retract()
        self.live.remove(req)

    def _take_slot(self, req: Req) -> None:
        if not req.kv.holds_kv:
            req.lock = self.cache.lock(req.last_node)
            self.slots.alloc([req])
            known = self.cache.prefix_device_indices(req) if req.prefix_len else torch.empty(0)
            self.slots.write((req.kv.req_pool_idx, slice(0, req.prefix_len)), known.to(torch.int32))

    def _allocate(self, req: Req, start: int, end: int) -> None:
        """Places for rows [start, end): what is left of the last page, then new pages."""
        size, row = self.page_size, self.slots.req_to_token[req.kv.req_pool_idx]
        first_new = -(-start // size) * size
        n_new = max(0, -(-end // size) * size - first_new)
        new = self.kv.alloc(n_new) if n_new else torch.empty(0, dtype=torch.int64)
        assert new is not None
        for position in range(start, min(first_new, end)):
            row[position] = row[position - 1] + 1
        if end > first_new:
            row[first_new:end] = new[: end - first_new]
        req.kv.kv_committed_len = req.kv.kv_allocated_len = end

    def rows_of(self, req: Req) -> list[int]:
        """Places in the KV cache of a request's rows."""
        return self.slots.req_to_token[req.kv.req_pool_idx, : req.kv.kv_committed_len].tolist()

    def cached(self) -> list[int]:
        return sorted(self.cache.all_values_flatten().tolist())

    def whole_pages(self, n_rows: int) -> int:
        return n_rows // self.page_size * self.page_size

    def check(self) -> None:
        """Every page is free, in the tree, or of one live request alone; prompts are in the tree, as whole pages."""
        tree = [place // self.page_size for place in self.cached()]
        own = []
        for req in self.live:
            n_shared = req.kv.cache_protected_len
            assert n_shared == self.whole_pages(min(len(req.origin_input_ids), req.kv.kv_committed_len))
            assert set(self.rows_of(req)[:n_shared]) <= set(self.cached())
            own += sorted({place // self.page_size for place in self.rows_of(req)[n_shared:]})
        pages = [*self.kv.get_all_free_pages().tolist(), *set(tree), *own]
        assert len(tree) == len(set(tree)) * self.page_size
        assert sorted(pages) == list(range(1, N_KV // self.page_size + 1))

    def assert_all_given_back(self) -> None:
        assert (self.live, self.cache.protected_size()) == ([], 0)
        assert self.slots.available_size() == self.slots.size
        self.cache.evict(EvictParams(num_tokens=N_KV))
        assert self.kv.available_size() == N_KV


@pytest.fixture(autouse=True, scope="module")
def settings_of_a_scheduler() -> Iterator[None]:
    with use_context(create_context(ServerArgs(model_path="dummy"), role="scheduler")):
        yield


def test_a_row_without_codes_is_keyed_by_its_text_id_and_one_with_codes_beyond_every_vocabulary():
    rows = np.concatenate([text_rows(2, TOKENS, 0), text_rows(2, TOKENS, 2**31 - 1), text_rows(3, TOKENS, GEN)])
    rows[4:, 1:] = [[8, 9, 9], [9, 9, 0], [0, 0, 0]]
    keys = keys_of(rows)
    assert (type(keys), keys.typecode, len(keys)) == (array, "q", len(rows))
    assert keys[:4].tolist() == [0, 0, 2**31 - 1, 2**31 - 1]
    assert all(2**62 <= key < 2**63 for key in keys[4:])


@pytest.mark.parametrize("n_vq", [1, 2, 16])
def test_keys_are_equal_exactly_where_rows_are(n_vq):
    rows = np.random.default_rng(0).integers(0, 3, (400, 1 + n_vq)).astype(np.int32)
    keys = row_keys(rows, pad_code=2)
    assert len(set(keys)) == len(np.unique(rows, axis=0))
    assert row_keys(np.asfortranarray(rows), pad_code=2) == row_keys(rows[::-1], pad_code=2)[::-1] == keys


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_a_prompt_that_comes_again_is_known_but_for_its_last_row(page_size):
    engine, keys = Engine(page_size), prompt(70)
    first, again = engine.request(keys), engine.request(keys)
    n_known = engine.whole_pages(len(keys) - 1)
    assert (engine.prefill(first), engine.prefill(again)) == (0, n_known)
    engine.check()
    assert engine.rows_of(first)[:n_known] == engine.rows_of(again)[:n_known]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_prompts_share_their_rows_up_to_the_first_that_differs_in_a_code(page_size):
    engine, frames = Engine(page_size), random_frames(70, TOKENS)
    other = frames.copy()
    other[66, 1] ^= 1  # code 1 of frame 66 lies on row 67 of the audio
    keys, other_keys = (keys_of(speech_request(TOKENS, f, n_words=5).request.prompt.rows) for f in (frames, other))
    engine.prefill(engine.request(keys))
    assert engine.prefill(engine.request(other_keys)) == engine.whole_pages(5 + 1 + 67)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("finishes", [False, True])
def test_generated_rows_are_never_matched_by_a_longer_prompt(finishes, page_size):
    engine, keys = Engine(page_size), prompt(4)
    req = engine.request(keys)
    engine.prefill(req)
    for _ in range(70):
        engine.decode(req)
    if finishes:
        engine.release(req)
    engine.check()
    assert engine.prefill(engine.request(keys + array("q", [GEN] * 71))) == engine.whole_pages(len(keys))
    assert engine.prefill(engine.request(keys)) == engine.whole_pages(len(keys) - 1)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_a_retracted_request_does_not_take_its_rows_from_a_longer_prompt(page_size):
    engine, keys = Engine(page_size), prompt(4)
    longer, req = engine.request(keys + array("q", [GEN] * 75)), engine.request(keys)
    engine.prefill(longer)
    engine.prefill(req)
    for _ in range(70):
        engine.decode(req)
    engine.retract(req)
    engine.check()
    n_known = engine.prefill(req)
    assert n_known == engine.whole_pages(len(keys))
    assert not set(engine.rows_of(req)[n_known:]) & set(engine.rows_of(longer))


@given(
    page_size=st.sampled_from(PAGE_SIZES),
    n_rows=st.integers(1, 12),
    chunk=st.integers(1, 30),
    known=st.booleans(),
    evicted=st.booleans(),
)
@settings(max_examples=120)
def test_a_retracted_request_is_prefilled_again_in_any_chunks(page_size, n_rows, chunk, known, evicted):
    engine, keys = Engine(page_size), prompt(7)
    if known:
        engine.prefill(engine.request(prompt(5)))
    req = engine.request(keys)
    engine.prefill(req, chunk)
    for _ in range(n_rows):
        engine.decode(req)
    engine.retract(req)
    engine.check()
    if evicted:
        engine.cache.evict(EvictParams(num_tokens=N_KV))
    engine.prefill(req, chunk)
    engine.check()
    assert len(engine.rows_of(req)) == len(keys) + n_rows + 1
    assert len(set(engine.rows_of(req))) == len(engine.rows_of(req))
    assert req.output_ids.tolist() == [GEN] * (n_rows + 2)
    for one in list(engine.live):
        engine.release(one)
    engine.assert_all_given_back()


@given(
    st.sampled_from(PAGE_SIZES),
    st.lists(st.tuples(st.sampled_from("pdddrrfe"), st.integers(0, 3), st.integers(1, 9)), max_size=40),
)
@settings(max_examples=120)
def test_any_life_of_requests_that_share_prompts_loses_no_row(page_size, events):
    engine = Engine(page_size)
    requests = [engine.request(prompt(3 + 20 * (i % 2), seed=i // 2)) for i in range(4)]
    for event, i, chunk in events:
        req, is_live = requests[i], requests[i] in engine.live
        if event == "p" and not is_live:
            engine.prefill(req, chunk)
        elif event == "d" and is_live:
            engine.decode(req)
        elif event == "r" and is_live:
            engine.retract(req)
        elif event == "f" and is_live:
            engine.release(req)
            requests[i] = engine.request(req.origin_input_ids)
        elif event == "e":
            engine.cache.evict(EvictParams(num_tokens=chunk))
        engine.check()
    for req in list(engine.live):
        engine.release(req)
    engine.assert_all_given_back()


def test_a_prompt_without_codes_is_known_by_its_text_ids():
    rows = np.array([[5, 9, 9], [7, 9, 9]], np.int32)
    assert row_keys(rows, pad_code=9).tolist() == [5, 7]
    assert row_keys(rows[:0], pad_code=9).tolist() == []


@settings(max_examples=50)
@given(data=st.data(), n_vq=st.integers(1, 3), known=st.sampled_from([0, 3, 800]))
def test_a_row_has_its_key_whatever_is_around_it(data: st.DataObject, n_vq: int, known: int):
    values = data.draw(st.lists(st.lists(st.integers(0, 2), min_size=1 + n_vq, max_size=1 + n_vq), max_size=12))
    rows = np.array(values, np.int32).reshape(-1, 1 + n_vq)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "_KNOWN_ROWS", known)
        keys = row_keys(rows, pad_code=2)
    for row, key in zip(rows, keys, strict=True):
        digest = blake2b(row.tobytes(), digest_size=8).digest()
        hashed = 2**62 | int.from_bytes(digest, sys.byteorder) & (2**62 - 1)
        assert key == (hashed if (row[1:] != 2).any() else row[0])
