"""A codec on disk: its config, where each of its tensors lies, what they are, and the codec itself."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_moss.codec.config import CodecConfig

from ...fuse.safetensors_file import StoredTensor
from .errors import DataError

if TYPE_CHECKING:
    import torch

    from sglang_moss.codec.codec import Codec

_READ_BYTES = 2**22


@dataclass(frozen=True)
class CodecFiles:
    """See above; light, and may be sent to another process.

    Attributes:
        fields: of the codec's own `config.json`.
        tensors: by the names of the codec's own checkpoint, which may differ from those in the files.
    """

    fields: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @property
    def config(self) -> CodecConfig:
        """Raises ValueError: see `CodecConfig.from_dict`."""
        return CodecConfig.from_dict(self.fields)

    def digest(self) -> str:
        """SHA-256 of the weights, the same whether they are fused or not: of names, dtypes, shapes and bytes."""
        names = sorted(self.tensors)
        whole = hashlib.sha256()
        with ThreadPoolExecutor() as pool:
            for name, one in zip(names, pool.map(_digest, map(self.tensors.__getitem__, names)), strict=True):
                tensor = self.tensors[name]
                whole.update(f"{name} {tensor.dtype} {list(tensor.shape)} {one}\n".encode())
        return whole.hexdigest()

    def load(self, device: "torch.device") -> "Codec":
        """The codec with its weights, float32 on a device.

        Raises:
            ValueError: weights and config do not belong together.
        """
        import torch

        from sglang_moss.codec.codec import Codec

        with torch.device(device):
            codec = Codec(self.config)
        codec.load_weights(self._load_tensors())
        return codec

    def _load_tensors(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        from safetensors import safe_open

        by_file: dict[Path, list[str]] = {}
        for name, tensor in self.tensors.items():
            by_file.setdefault(tensor.path, []).append(name)
        for path, names in by_file.items():
            with safe_open(path, framework="pt") as file:
                for name in names:
                    yield name, file.get_tensor(self.tensors[name].name)


def _digest(tensor: StoredTensor) -> str:
    sha256, left = hashlib.sha256(), tensor.n_bytes
    with tensor.path.open("rb") as file:
        file.seek(tensor.offset)
        while left:
            data = file.read(min(left, _READ_BYTES))
            if not data:
                raise DataError(f"{tensor.path} has become shorter while it was read")
            sha256.update(data)
            left -= len(data)
    return sha256.hexdigest()
