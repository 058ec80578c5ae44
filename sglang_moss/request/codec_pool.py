"""The codecs of a server, one a data-parallel rank, as one encoder; and whether each of them answers."""

import asyncio
from collections.abc import Sequence

import numpy as np

from sglang_moss.request.codec_client import CodecClient


class CodecPool:
    """Encodes waveforms by whichever codec has least to do. Belongs to one event loop.

    Args:
        addresses: of the codecs, by rank.
        n_vq: codebooks of an encoding.
    """

    def __init__(self, addresses: Sequence[str], n_vq: int) -> None:
        self._clients = [CodecClient(address, n_vq) for address in addresses]
        self._n_samples = [0] * len(addresses)  # that each has in hand

    async def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `CodecClient.encode`."""
        rank = self._n_samples.index(min(self._n_samples))
        n_samples = sum(map(len, waveforms))
        self._n_samples[rank] += n_samples
        try:
            return await self._clients[rank].encode(waveforms)
        finally:
            self._n_samples[rank] -= n_samples

    async def hook_runs(self) -> dict[str, int]:
        """How often each hook has run in every rank's process: in the one where it has run least.

        Raises:
            MossError: see `CodecClient.encode`; of any of the codecs.
        """
        of_ranks = await asyncio.gather(*(client.hook_runs() for client in self._clients))
        targets = set().union(*of_ranks)
        return {target: min(runs.get(target, 0) for runs in of_ranks) for target in targets}
