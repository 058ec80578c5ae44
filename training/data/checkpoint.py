"""What preparing needs of a checkpoint: its tokenizer, its special tokens, and the codec.

Either two published directories (`--model-path MOSS-TTSD-v1.0 --codec-path MOSS-Audio-Tokenizer`), or a fused one.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sglang_moss.checkpoint import MODEL_TYPE
from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.request.prompt import Tokenizer

from ...fuse.checkpoint import read_weights
from ...fuse.compatibility import check_architectures, check_codec_fits
from ...fuse.json_file import read_json
from .codec_files import CodecFiles
from .errors import DataError

_CODEC_PREFIX = "codec_model."
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Checkpoint:
    """A language model's files, and a codec's.

    Attributes:
        model_path: where the tokenizer is.
    """

    model_path: Path
    tokens: SpecialTokens
    codec: CodecFiles

    @classmethod
    def open(
        cls,
        model_path: str | Path,
        codec_path: str | Path | None = None,
        options: tuple[str, str] = ("--model-path", "--codec-path"),
    ) -> "Checkpoint":
        """Read the configs and the headers of the codec's weights.

        Args:
            model_path: of the language model, or of a fused checkpoint.
            codec_path: of the codec; None with a fused checkpoint.
            options: what whoever asks calls the two.
        Raises:
            DataError: a fused directory and a codec, or none of them.
            FuseError: a file is missing or damaged, or the two do not belong together.
        """
        model_path = Path(model_path)
        model_option, codec_option = options
        lm = read_json(model_path / "config.json")
        if lm.content.get("model_type") == MODEL_TYPE:
            if codec_path is not None:
                raise DataError(f"{model_path} is fused and has its codec: leave {codec_option} out")
            tensors = read_weights(model_path)
            own = {n.removeprefix(_CODEC_PREFIX): t for n, t in tensors.items() if n.startswith(_CODEC_PREFIX)}
            codec = CodecFiles(lm.mapping("codec_config"), own)
        else:
            if codec_path is None:
                raise DataError(f"{model_path} has no codec of its own: name it with {codec_option}")
            codec_path = Path(codec_path)
            config = read_json(codec_path / "config.json")
            check_architectures(lm, config, codec_option, model_option)
            check_codec_fits(lm, config)
            codec = CodecFiles(config.content, read_weights(codec_path))
        try:
            tokens = special_tokens(lm.content)
        except KeyError as missing:
            raise DataError(f"{lm.path} has no field {missing}: download the checkpoint again") from None
        return cls(model_path, tokens, codec)

    def tokenizer(self) -> Tokenizer:
        from transformers import Qwen2Tokenizer  # only here: it takes seconds to import

        return Qwen2Tokenizer.from_pretrained(str(self.model_path))

    def tokenizer_digest(self) -> str:
        """SHA-256 of `tokenizer.json`."""
        path = self.model_path / _TOKENIZER
        if not path.is_file():
            raise DataError(f"{path} is missing: download the whole checkpoint")
        return hashlib.sha256(path.read_bytes()).hexdigest()
