"""Gradients of ranks that all have the whole model, added up while the backward pass still makes others."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, distributed

_BUCKET_BYTES = 256 * 1024**2


class GradientSum:
    """One all-reduce a bucket, as soon as its gradients are there; buckets in the same order on every rank."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """
        Args:
            tensors: float32, in the order in which the backward pass comes to them.
        """
        self._buckets = list(_buckets(tensors))
        self._bucket_of = {id(tensor): i for i, bucket in enumerate(self._buckets) for tensor in bucket}
        self._missing: list[int] = []
        self._n_sent = 0
        self._under_way: list[distributed.Work] = []

    def expect(self) -> None:
        """The backward pass that comes next is the last one: what it has added to is complete."""
        self._missing = [len(bucket) for bucket in self._buckets]
        self._n_sent = 0

    def put(self, tensor: Tensor) -> None:
        """A pass has added to the gradient of a tensor."""
        if not self._missing:
            return
        self._missing[self._bucket_of[id(tensor)]] -= 1
        while self._n_sent < len(self._buckets) and self._missing[self._n_sent] == 0:
            self._send()

    def finish(self) -> None:
        """Every gradient is the sum over ranks, once this has returned."""
        if not self._missing:
            self.expect()
        while self._n_sent < len(self._buckets):
            self._send()
        for work in self._under_way:
            work.wait()
        self._under_way, self._missing = [], []

    def _send(self) -> None:
        tensors = [tensor for tensor in self._buckets[self._n_sent] if tensor.grad is not None]
        self._n_sent += 1
        if not tensors:
            return
        flat = torch.cat([tensor.grad.flatten() for tensor in tensors if tensor.grad is not None])
        # Gradients become parts of the bucket: it is summed in place, and nothing is copied back.
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.grad = part.view_as(tensor)
        work = distributed.all_reduce(flat, async_op=True)
        assert work is not None, "this rank is one of the group"
        self._under_way.append(work)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    n_bytes = 0
    for tensor in tensors:
        if bucket and n_bytes + 4 * tensor.numel() > _BUCKET_BYTES:
            yield bucket
            bucket, n_bytes = [], 0
        bucket.append(tensor)
        n_bytes += 4 * tensor.numel()
    if bucket:
        yield bucket
