"""Which tensor goes where: names in the fused checkpoint, shards, and the bytes of every header and of the index.

    language model                    codec
    language_model.*  -> model.*      *  -> codec_model.*
    emb_ext.*         -> emb_ext.*
    lm_heads.*        -> lm_heads.*

Source: the fuse script of MOSS-TTSD (names, 5 GiB shards with the language model first, `total_size` of whole files).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import FuseError
from .json_file import to_bytes
from .safetensors_file import StoredTensor, build_header, file_order

LM_PREFIXES = {"language_model.": "model.", "emb_ext.": "emb_ext.", "lm_heads.": "lm_heads."}
CODEC_PREFIXES = {"": "codec_model."}
MAX_SHARD_BYTES = 5 * 1024**3


@dataclass(frozen=True)
class PlannedShard:
    """One file to write: `header`, then the bytes of `tensors` one after the other."""

    name: str
    header: bytes
    tensors: tuple[tuple[str, StoredTensor], ...]  # name in the fused checkpoint, what to copy

    @property
    def n_bytes(self) -> int:
        return len(self.header) + sum(source.n_bytes for _, source in self.tensors)


@dataclass(frozen=True)
class FusePlan:
    """Everything about the fused weights but their values."""

    shards: tuple[PlannedShard, ...]

    @property
    def n_bytes(self) -> int:
        """Size of all shard files, headers included."""
        return sum(shard.n_bytes for shard in self.shards)

    def sources(self) -> dict[str, StoredTensor]:
        """What each fused name is a copy of."""
        return {name: source for shard in self.shards for name, source in shard.tensors}

    def index_bytes(self) -> bytes:
        """The content of model.safetensors.index.json."""
        weight_map = {name: shard.name for shard in self.shards for name, _ in shard.tensors}
        return to_bytes({"metadata": {"total_size": self.n_bytes}, "weight_map": weight_map})


def plan_fusion(lm: Iterable[StoredTensor], codec: Iterable[StoredTensor], max_shard_bytes: int) -> FusePlan:
    """Name every tensor and cut shards of at most `max_shard_bytes` of data; a tensor is never split.

    Raises:
        FuseError: two tensors with the same name, a codec tensor whose name without the prefix is taken, or a tensor
            without a place in a fused checkpoint.
    """
    lm, codec = list(lm), list(codec)
    fused = _renamed([*_prefixed(lm, LM_PREFIXES), *_prefixed(codec, CODEC_PREFIXES)])
    for source in codec:
        if source.name in fused:
            raise _collision(fused[source.name], source, source.name)
    unknown = [source for source in lm if not source.name.startswith(tuple(LM_PREFIXES))]
    if unknown:
        raise FuseError(
            f"{unknown[0].path}: tensor {unknown[0].name} has no place in a fused checkpoint, known are "
            f"{', '.join(prefix + '*' for prefix in LM_PREFIXES)}: pass the published language model"
        )
    batches = list(_cut(fused.items(), max_shard_bytes))
    return FusePlan(tuple(_shard(i, len(batches), batch) for i, batch in enumerate(batches, start=1)))


def _prefixed(sources: list[StoredTensor], prefixes: dict[str, str]) -> Iterator[tuple[str, StoredTensor]]:
    for source in sources:
        # An unknown name stays as it is: if it collides, that is the better thing to say than that it is unknown.
        prefix = next((prefix for prefix in prefixes if source.name.startswith(prefix)), "")
        yield prefixes.get(prefix, "") + source.name.removeprefix(prefix), source


def _renamed(pairs: Iterable[tuple[str, StoredTensor]]) -> dict[str, StoredTensor]:
    fused: dict[str, StoredTensor] = {}
    for name, source in pairs:
        if name in fused:
            raise _collision(fused[name], source, name)
        fused[name] = source
    return fused


def _collision(first: StoredTensor, second: StoredTensor, name: str) -> FuseError:
    return FuseError(
        f"tensor {first.name} of {first.path} and tensor {second.name} of {second.path} collide: both claim the fused "
        f"name {name}; pass the published checkpoints"
    )


def _cut(pairs: Iterable[tuple[str, StoredTensor]], max_bytes: int) -> Iterator[list[tuple[str, StoredTensor]]]:
    batch: list[tuple[str, StoredTensor]] = []
    n_bytes = 0
    for name, source in pairs:
        if batch and n_bytes + source.n_bytes > max_bytes:
            yield batch
            batch, n_bytes = [], 0
        batch.append((name, source))
        n_bytes += source.n_bytes
    yield batch


def _shard(number: int, n_shards: int, batch: list[tuple[str, StoredTensor]]) -> PlannedShard:
    ordered = sorted(batch, key=lambda pair: file_order(pair[1].dtype, pair[0]))
    return PlannedShard(f"model-{number:05d}-of-{n_shards:05d}.safetensors", build_header(ordered), tuple(ordered))
