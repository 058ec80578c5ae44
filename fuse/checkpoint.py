"""The weights of a checkpoint directory: one `model.safetensors`, or shards and the index that names them."""

from pathlib import Path, PurePath

from sglang_moss.checkpoint import INDEX_NAME, SINGLE_NAME

from .errors import FuseError, listed
from .json_file import JsonFile, read_json
from .safetensors_file import StoredTensor, read_header


def read_weights(directory: Path) -> dict[str, StoredTensor]:
    """Locate every tensor of a checkpoint; only headers are read.

    Returns:
        The tensors by name, ordered by shard and then by name.
    Raises:
        FuseError: no weights, a missing, damaged or unnamed shard, or an index that differs from the shards.
    """
    index_path = directory / INDEX_NAME
    if index_path.is_file():
        tensors = _read_shards(directory, read_json(index_path))
    elif (directory / SINGLE_NAME).is_file():
        tensors = read_header(directory / SINGLE_NAME)
    else:
        raise FuseError(f"{directory} has neither {INDEX_NAME} nor {SINGLE_NAME}: download the whole checkpoint")
    if not tensors:
        raise FuseError(f"{directory} holds no tensor: download the whole checkpoint")
    return dict(sorted(tensors.items(), key=lambda item: (item[1].path.name, item[0])))


def _read_shards(directory: Path, index: JsonFile) -> dict[str, StoredTensor]:
    shard_of = index.mapping("weight_map")
    for name, shard in shard_of.items():
        if not isinstance(shard, str) or PurePath(shard).name != shard:
            raise FuseError(f"{index.path}: tensor {name} must name a file beside the index, found {shard!r}")

    shards = sorted(set(shard_of.values()))
    unnamed = sorted({path.name for path in directory.glob("*.safetensors")} - set(shards))
    if unnamed:
        raise FuseError(
            f"{index.path} does not name {listed(unnamed)}: download the index again, or remove what does not belong"
        )
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        for name, tensor in read_header(directory / shard).items():
            if shard_of.get(name) != shard:
                said = f"puts it in {shard_of[name]}" if name in shard_of else "lacks it"
                raise FuseError(f"{tensor.path} holds tensor {name}, but {index.path} {said}: download the index again")
            tensors[name] = tensor
    absent = sorted(shard_of.keys() - tensors.keys())
    if absent:
        where = directory / shard_of[absent[0]]
        raise FuseError(f"{index.path} names tensors that {where} lacks ({listed(absent)}): download both again")
    return tensors
