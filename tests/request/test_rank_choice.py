"""Which rank speaks a request: its voice's, within its share."""

from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.request.ranks import Ranks

VOICES = [bytes([i]) * 40 for i in range(200)]


def test_one_rank_is_not_chosen():
    assert Ranks(1).choose("a", b"voice") is None


def test_a_voice_finds_its_rank_again_also_in_another_server():
    for voice in VOICES:
        ranks, other = Ranks(4), Ranks(4)
        first = ranks.choose("a", voice)
        ranks.release("a")
        assert ranks.choose("b", voice) == first == other.choose("c", voice)


def test_voices_spread_and_few_move_when_a_rank_is_added():
    before = [Ranks(4).choose("a", voice) for voice in VOICES]
    after = [Ranks(5).choose("a", voice) for voice in VOICES]
    assert set(before) == {0, 1, 2, 3}
    moved = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert all(a == 4 for _, a in moved)
    assert 0 < len(moved) < len(VOICES) / 2


def test_one_voice_fills_no_rank_beyond_its_share_and_goes_to_one_other_first():
    ranks = Ranks(4)
    chosen = [ranks.choose(str(i), b"voice") for i in range(100)]
    counts = [chosen.count(rank) for rank in range(4)]
    assert max(counts) <= 29
    assert min(counts) >= 15
    assert chosen[0] == max(range(4), key=counts.__getitem__)


def test_without_a_voice_the_least_busy_rank_is_taken():
    ranks = Ranks(3)
    assert [ranks.choose(str(i), b"") for i in range(3)] == [0, 1, 2]
    ranks.release("1")
    assert ranks.choose("3", b"") == 1


@given(
    n_ranks=st.integers(2, 6),
    steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3), st.booleans()), max_size=80),
)
def test_whatever_comes_and_goes_no_rank_has_more_than_its_share(n_ranks, steps):
    ranks, running = Ranks(n_ranks), {}
    for rid, voice, comes in steps:
        if comes:
            others = {name: rank for name, rank in running.items() if name != rid}
            rank = ranks.choose(str(rid), bytes([voice]))
            assert list(others.values()).count(rank) < 1.1 * (len(others) + 1) / n_ranks + 1
            running[rid] = rank
        else:
            ranks.release(str(rid))
            ranks.release(str(rid))
            running.pop(rid, None)
    assert sorted(ranks._loads) == sorted(list(running.values()).count(rank) for rank in range(n_ranks))
