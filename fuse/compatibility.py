"""Whether a language model and a codec belong together: architectures, sizes, and complete sets of weights."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from sglang_moss.checkpoint import MODEL_TYPE

from .errors import FuseError, listed
from .json_file import JsonFile
from .safetensors_file import StoredTensor

LM_ARCHITECTURE = "MossTTSDelayModel"
CODEC_ARCHITECTURE = "MossAudioTokenizerModel"
TEXT_HEAD = "lm_heads.0.weight"
LM_ENDS = ("language_model.embed_tokens.weight", "language_model.norm.weight")
ROLES = {
    LM_ARCHITECTURE: "the language model, which {lm_option} takes",
    CODEC_ARCHITECTURE: "the codec, which {codec_option} takes",
}


def check_architectures(
    lm: JsonFile, codec: JsonFile, codec_option: str = "--codec-model-path", lm_option: str = "--model-path"
) -> None:
    """Refuse a fused input, swapped arguments and other models, by the `architectures` of both config.json.

    The options are what whoever asks calls the two directories.
    """
    roles = {name: role.format(codec_option=codec_option, lm_option=lm_option) for name, role in ROLES.items()}
    for config in (lm, codec):
        if "codec_config" in config.content or config.content.get("model_type") == MODEL_TYPE:
            raise FuseError(f"{config.path} is of a checkpoint that is already fused: serve it as it is")
    if _architecture(lm) == CODEC_ARCHITECTURE and _architecture(codec) == LM_ARCHITECTURE:
        raise FuseError(
            f"{lm.path} is of the codec and {codec.path} is of the language model: swap {lm_option} and {codec_option}"
        )
    for config, expected in ((lm, LM_ARCHITECTURE), (codec, CODEC_ARCHITECTURE)):
        found = _architecture(config)
        if found != expected:
            role = f" ({roles[found]})" if found in roles else ""
            raise FuseError(
                f"{config.path}: architecture must be {expected}, found {found}{role}: pass {roles[expected]}"
            )


def check_codec_fits(lm: JsonFile, codec: JsonFile) -> None:
    """Refuse a codec whose codebooks or sampling rate are not those that the language model was trained with."""
    n_vq = lm.integer("n_vq")
    n_codebooks = codec.integer("quantizer_kwargs.num_quantizers")
    if not 1 <= n_vq <= n_codebooks:
        raise FuseError(
            f"{codec.path}: quantizer_kwargs.num_quantizers is {n_codebooks}, but n_vq in {lm.path} is {n_vq}: "
            "take a codec with at least that many codebooks"
        )
    pairs = [("audio_vocab_size", "quantizer_kwargs.codebook_size"), ("sampling_rate", "sampling_rate")]
    if "sample_rate" in codec.content:  # an older name that published configs carry beside the newer one
        pairs.append(("sampling_rate", "sample_rate"))
    for lm_field, codec_field in pairs:
        expected, found = lm.integer(lm_field), codec.integer(codec_field)
        if found != expected:
            raise FuseError(
                f"{codec.path}: {codec_field} is {found}, but {lm_field} in {lm.path} is {expected}: "
                "take the codec that this language model was trained with"
            )


def with_text_head(lm: JsonFile, tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors of a language model, and its text head where that is its embedding and was left out for it."""
    language = lm.content.get("language_config")
    ties = isinstance(language, dict) and language.get("tie_word_embeddings") is True
    embedding = tensors.get(LM_ENDS[0])
    if not ties or embedding is None or TEXT_HEAD in tensors:
        return tensors
    return tensors | {TEXT_HEAD: replace(embedding, name=TEXT_HEAD)}


def check_weights_complete(lm: JsonFile, codec: JsonFile, lm_names: Iterable[str], codec_names: Iterable[str]) -> None:
    """Refuse checkpoints whose repeated modules are not as many as their config says, or not all alike."""
    n_vq = lm.integer("n_vq")
    names = list(lm_names)
    missing = [name for name in LM_ENDS if name not in names]
    if missing:
        raise FuseError(f"the weights in {lm.path.parent} lack {listed(missing)}: download the whole checkpoint")
    _check_numbered(lm, names, "emb_ext.", n_vq, "n_vq")
    _check_numbered(lm, names, "lm_heads.", n_vq + 1, "n_vq plus the text head")
    layers = "language_config.num_hidden_layers"
    _check_numbered(lm, names, "language_model.layers.", lm.integer(layers), layers)
    codebooks = "quantizer_kwargs.num_quantizers"
    _check_numbered(codec, list(codec_names), "quantizer.quantizers.", codec.integer(codebooks), codebooks)


def _check_numbered(config: JsonFile, names: list[str], prefix: str, n_expected: int, why: str) -> None:
    """Modules `prefix`0 .. must be `n_expected`, each with the tensors that any other of them has."""
    parts_of: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if name.startswith(prefix):
            number, _, part = name.removeprefix(prefix).partition(".")
            parts_of[number].add(part)
    parts = set().union(*parts_of.values()) or {"weight"}
    expected = {f"{prefix}{number}.{part}" for number in range(n_expected) for part in parts}
    found = {name for name in names if name.startswith(prefix)}
    if found == expected:
        return
    needs = f"{config.path} asks for {n_expected} modules {prefix}* ({why}), but the weights in {config.path.parent}"
    if expected - found:
        raise FuseError(f"{needs} lack {listed(sorted(expected - found))}: download the whole checkpoint")
    raise FuseError(f"{needs} also hold {listed(sorted(found - expected))}: take the config of these weights")


def _architecture(config: JsonFile) -> str | None:
    match config.content.get("architectures"):
        case [str(architecture)]:
            return architecture
        case _:
            return None
