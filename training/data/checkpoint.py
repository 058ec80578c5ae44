"""What preparing needs of a checkpoint: its tokenizer, its special tokens, and the codec.

Either two published directories (`--model-path MOSS-TTSD-v1.0 --codec-path MOSS-Audio-Tokenizer`), or a fused one.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.request.prompt import Tokenizer

from ...fuse.checkpoint import read_weights
from ...fuse.compatibility import check_architectures, check_codec_fits
from ...fuse.configs import FUSED_MODEL_TYPE
from ...fuse.json_file import read_json
from ...fuse.safetensors_file import StoredTensor
from .errors import DataError

if TYPE_CHECKING:
    import torch

    from sglang_moss.codec.codec import Codec

_CODEC_PREFIX = "codec_model."
_TOKENIZER = "tokenizer.json"
_READ_BYTES = 2**22


@dataclass(frozen=True)
class Checkpoint:
    """A language model's files, and a codec's.

    Attributes:
        model_path: where the tokenizer is.
        codec_config: as the codec's own `config.json` has it.
        codec_tensors: by the names of the codec's own checkpoint.
    """

    model_path: Path
    codec_path: Path | None
    tokens: SpecialTokens
    codec_config: dict[str, Any]
    codec_tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, model_path: str | Path, codec_path: str | Path | None = None) -> "Checkpoint":
        """Read the configs and the headers of the codec's weights.

        Raises:
            DataError: a fused directory and a codec, or none of them.
            FuseError: a file is missing or damaged, or the two do not belong together.
        """
        model_path = Path(model_path)
        lm = read_json(model_path / "config.json")
        if lm.content.get("model_type") == FUSED_MODEL_TYPE:
            if codec_path is not None:
                raise DataError(f"{model_path} is fused and has its codec: leave --codec-path out")
            tensors = read_weights(model_path)
            codec_config = lm.mapping("codec_config")
            own = {n.removeprefix(_CODEC_PREFIX): t for n, t in tensors.items() if n.startswith(_CODEC_PREFIX)}
        else:
            if codec_path is None:
                raise DataError(f"{model_path} has no codec of its own: name it with --codec-path")
            codec_path = Path(codec_path)
            codec = read_json(codec_path / "config.json")
            check_architectures(lm, codec)
            check_codec_fits(lm, codec)
            codec_config, own = codec.content, read_weights(codec_path)
        try:
            tokens = special_tokens(lm.content)
        except KeyError as missing:
            raise DataError(f"{lm.path} has no field {missing}: download the checkpoint again") from None
        return cls(model_path, codec_path, tokens, codec_config, own)

    def tokenizer(self) -> Tokenizer:
        from transformers import AutoTokenizer  # only here: it takes seconds to import

        return AutoTokenizer.from_pretrained(self.model_path)

    def tokenizer_digest(self) -> str:
        """SHA-256 of `tokenizer.json`."""
        path = self.model_path / _TOKENIZER
        if not path.is_file():
            raise DataError(f"{path} is missing: download the whole checkpoint")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def codec_digest(self) -> str:
        """SHA-256 of the codec's weights, the same whether it is fused or not: of names, dtypes, shapes and bytes."""
        with ThreadPoolExecutor() as pool:
            digests = pool.map(_digest, (self.codec_tensors[name] for name in sorted(self.codec_tensors)))
            whole = hashlib.sha256()
            for name, one in zip(sorted(self.codec_tensors), digests, strict=True):
                tensor = self.codec_tensors[name]
                whole.update(f"{name} {tensor.dtype} {list(tensor.shape)} {one}\n".encode())
        return whole.hexdigest()

    def load_codec(self, device: "torch.device") -> "Codec":
        """The codec with its weights, float32 on a device."""
        import torch

        from sglang_moss.codec.codec import Codec
        from sglang_moss.codec.config import CodecConfig

        with torch.device(device):
            codec = Codec(CodecConfig.from_dict(self.codec_config))
        codec.load_weights(self._load_tensors())
        return codec

    def _load_tensors(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        from safetensors import safe_open

        by_file: dict[Path, list[str]] = {}
        for name, tensor in self.codec_tensors.items():
            by_file.setdefault(tensor.path, []).append(name)
        for path, names in by_file.items():
            with safe_open(path, framework="pt") as file:
                for name in names:
                    yield name, file.get_tensor(self.codec_tensors[name].name)


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
