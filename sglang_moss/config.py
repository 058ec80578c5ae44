"""The fused checkpoint's configuration: the one place where its field names are spelled.

Source: MOSS-TTSD fuse script (`config.json` of a fused checkpoint).
"""

from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from sglang_moss.checkpoint import MODEL_TYPE, OWN_FIELD, TTS_ARCHITECTURE
from sglang_moss.errors import BadSetting
from sglang_moss.request.profile import PROFILES, Profile


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


def profile_of(config: Any) -> Profile:
    """Which model of the family a fused checkpoint is, with the defaults that it brings.

    Args:
        config: its configuration, or what else has these attributes.
    Raises:
        ValueError: one that this version does not know, or defaults that are none.
    """
    own = getattr(config, OWN_FIELD, None)
    own = own if isinstance(own, dict) else {}
    name = own.get("profile")
    if name is None:
        name = "tts" if TTS_ARCHITECTURE in (getattr(config, "architectures", None) or ()) else "ttsd"
    if name not in PROFILES:
        raise ValueError(
            f"the checkpoint's profile is {name!r:.32}, known are {', '.join(PROFILES)}: fuse it again, or take the "
            "version that fused it"
        )
    try:
        return PROFILES[name].with_defaults(own)
    except BadSetting as error:
        raise ValueError(f"{OWN_FIELD} in config.json: {error}") from None


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
