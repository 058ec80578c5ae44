"""Which data-parallel rank speaks a request: the one that knows its voice, unless that has more than its share.

Each rank has a prefix cache and voice states of its own. Ranks are ordered by a hash of voice and rank, so that the
same voice finds the same rank in every process without anybody remembering it, and adding a rank moves few voices.
"""

import math
from hashlib import blake2b

_SHARE = 1.1  # of what each rank would have if all had the same; more costs throughput, less costs prefills


class Ranks:
    """What each rank has to do. Belongs to one event loop.

    Args:
        n_ranks: 1: nothing is chosen.
    """

    def __init__(self, n_ranks: int) -> None:
        self._loads = [0] * n_ranks
        self._rank_of: dict[str, int] = {}  # by request id

    def choose(self, rid: str, voice: bytes) -> int | None:
        """The rank for a request that is about to go to it; None where there is only one.

        Args:
            voice: codes of the voice that the prompt opens with; empty: any rank is as good as another.
        """
        if len(self._loads) == 1:
            return None
        self.release(rid)
        share = math.ceil(_SHARE * (sum(self._loads) + 1) / len(self._loads))
        ranks = range(len(self._loads))
        preferred = by_preference(voice, len(ranks)) if voice else sorted(ranks, key=lambda rank: self._loads[rank])
        rank = next(rank for rank in preferred if self._loads[rank] < share)
        self._rank_of[rid] = rank
        self._loads[rank] += 1
        return rank

    def release(self, rid: str) -> None:
        """A request has ended; unknown ids, and a second time, are no error."""
        rank = self._rank_of.pop(rid, None)
        if rank is not None:
            self._loads[rank] -= 1


def by_preference(voice: bytes, n_ranks: int) -> list[int]:
    """All ranks, the one at which a voice is at home first."""
    digest = blake2b(voice, digest_size=16).digest()
    return sorted(range(n_ranks), key=lambda rank: blake2b(digest + rank.to_bytes(4), digest_size=8).digest())
