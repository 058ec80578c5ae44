"""The fused checkpoint's configuration: the one place where its field names are spelled.

Source: MOSS-TTSD fuse script (`config.json` of a fused checkpoint).
"""

from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from sglang_moss.checkpoint import MODEL_TYPE


@dataclass(frozen=True)
class SpecialTokens:
    """Ids and sizes that give rows their meaning; all from the checkpoint."""

    im_start: int
    im_end: int
    text_pad: int
    audio_start: int
    audio_end: int
    user_slot: int
    gen_slot: int
    delay_slot: int
    pad_code: int
    n_vq: int


class MossTTSDConfig(PretrainedConfig):
    """`config.json` of a fused checkpoint; unknown fields are kept as they are."""

    model_type = MODEL_TYPE

    def special_tokens(self) -> SpecialTokens:
        return special_tokens(self.to_dict())


def special_tokens(config: dict[str, Any]) -> SpecialTokens:
    """`SpecialTokens` of a fused or language-model `config.json`; KeyError names a missing field."""
    return SpecialTokens(
        im_start=config["im_start_token_id"],
        im_end=config["im_end_token_id"],
        text_pad=config["pad_token_id"],
        audio_start=config["audio_start_token_id"],
        audio_end=config["audio_end_token_id"],
        user_slot=config["audio_user_slot_token_id"],
        gen_slot=config["audio_assistant_gen_slot_token_id"],
        delay_slot=config["audio_assistant_delay_slot_token_id"],
        pad_code=config["audio_pad_code"],
        n_vq=config["n_vq"],
    )
