"""Codec config: the shape of every stage, read from the checkpoint's dict and checked once.

    samples -> [patch, transformer] x n -> quantizer -> codes      encoder: each patch makes rows fewer and wider
    codes -> quantizer -> [transformer, patch] x n -> samples      decoder: each patch makes rows more and narrower

Source: MOSS-Audio-Tokenizer `MossAudioTokenizerConfig` and the constructor of `MossAudioTokenizerModel`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

# Fields of a transformer stage that have one implemented value, with the value that the reference takes when absent.
_FIXED_STAGE_FIELDS = {
    "causal": (True, False),
    "gating": ("none", "none"),
    "norm": ("layer_norm", "layer_norm"),
    "positional_embedding": ("rope", "sin"),
    "weights_per_step": (0, 0),
}
_SIZE_STAGE_FIELDS = ("input_dimension", "output_dimension", "d_model", "num_heads", "num_layers", "dim_feedforward")
_OTHER_STAGE_FIELDS = ("module_type", "conv_layout", "layer_scale", "max_period")
_QUANTIZER_TYPES = ("rlfq", "random_prefix_rlfq")  # these differ in training only


@dataclass(frozen=True)
class PatchShape:
    """A reshape between `patch_size` narrow rows and one wide row."""

    patch_size: int


@dataclass(frozen=True)
class TransformerShape:
    """One transformer stage; `window` and `rows_per_frame` follow from the stage's place in its chain."""

    input_dim: int
    output_dim: int
    d_model: int
    n_heads: int
    n_layers: int
    feed_forward_dim: int
    max_period: float
    layer_scale: float | None  # first value of the per-channel scales; None: the stage has none
    window: int  # keys that a query may see, itself included
    rows_per_frame: int

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


StageShape: TypeAlias = PatchShape | TransformerShape


@dataclass(frozen=True)
class QuantizerShape:
    """The residual quantizer: `n_codebooks` searches in `codebook_dim`, residual kept in `rvq_dim`."""

    input_dim: int
    rvq_dim: int
    output_dim: int
    n_codebooks: int
    codebook_size: int
    codebook_dim: int


@dataclass(frozen=True)
class CodecConfig:
    """Everything about the codec that a checkpoint decides."""

    sampling_rate: int  # Hz
    frame_samples: int
    context_s: float  # how far every transformer looks back
    encoder: tuple[StageShape, ...]
    decoder: tuple[StageShape, ...]
    quantizer: QuantizerShape

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "CodecConfig":
        """Read a codec's `config.json`, or the `codec_config` of a fused one.

        Raises:
            ValueError: a field is missing, has a value that this codec does not implement, or contradicts another.
        """
        sampling_rate = _sampling_rate(d)
        frame_samples = _size(d, "downsample_rate", "codec config")
        context_s = _positive(d, "causal_transformer_context_duration", "codec config")
        if d.get("number_channels", 1) != 1:
            raise ValueError(f"codec config: number_channels is {d['number_channels']!r}, only 1 is implemented")
        quantizer = _read_quantizer(d)
        encoder, width, rows_per_frame, rate = _read_chain(
            d, "encoder_kwargs", 1, frame_samples, sampling_rate, context_s
        )
        if (width, rows_per_frame) != (quantizer.input_dim, 1):
            raise ValueError(
                f"codec config: encoder_kwargs end with {rows_per_frame} rows of width {width} a frame, expected 1 row "
                f"of quantizer_kwargs.input_dim {quantizer.input_dim}; the patch sizes must multiply to {frame_samples}"
            )
        decoder, width, rows_per_frame, _ = _read_chain(d, "decoder_kwargs", quantizer.output_dim, 1, rate, context_s)
        if (width, rows_per_frame) != (1, frame_samples):
            raise ValueError(
                f"codec config: decoder_kwargs end with {rows_per_frame} rows of width {width} a frame, "
                f"expected downsample_rate {frame_samples} rows of width 1"
            )
        return cls(sampling_rate, frame_samples, context_s, encoder, decoder, quantizer)

    @property
    def n_codebooks(self) -> int:
        return self.quantizer.n_codebooks

    @property
    def codebook_size(self) -> int:
        return self.quantizer.codebook_size

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sampling_rate / self.frame_samples


def _read_chain(
    d: Mapping[str, Any], side: str, width: int, rows_per_frame: int, rate: float, context_s: float
) -> tuple[tuple[StageShape, ...], int, int, float]:
    """Follow the stages of one side; returns them with the width, rows per frame and rate (Hz) after the last."""
    down = side == "encoder_kwargs"
    stages: list[StageShape] = []
    for i, stage in enumerate(_field(d, side, "codec config")):
        where = f"codec config: {side}[{i}]"
        module_type = stage.get("module_type")
        if module_type == "PatchedPretransform":
            patch = _size(stage, "patch_size", where)
            if (rows_per_frame if down else width) % patch:
                raise ValueError(f"{where}.patch_size {patch} does not divide {rows_per_frame} rows of width {width}")
            # The rate follows the reference's float divisions, since int() of it decides the window.
            if down:
                width, rows_per_frame, rate = width * patch, rows_per_frame // patch, rate / patch
            else:
                width, rows_per_frame, rate = width // patch, rows_per_frame * patch, rate * patch
            stages.append(PatchShape(patch))
        elif module_type == "Transformer":
            shape = _read_transformer(stage, where, int(rate * context_s), rows_per_frame)
            if shape.input_dim != width:
                raise ValueError(f"{where}.input_dimension is {shape.input_dim}, the stage before gives {width}")
            width = shape.output_dim
            stages.append(shape)
        else:
            raise ValueError(f"{where}.module_type is {module_type!r}, expected 'Transformer' or 'PatchedPretransform'")
    return tuple(stages), width, rows_per_frame, rate


def _read_transformer(stage: Mapping[str, Any], where: str, window: int, rows_per_frame: int) -> TransformerShape:
    for field, (implemented, absent) in _FIXED_STAGE_FIELDS.items():
        value = stage.get(field, absent)
        if value != implemented:
            raise ValueError(f"{where}.{field} is {value!r}, only {implemented!r} is implemented")
    unknown = sorted(set(stage) - {*_FIXED_STAGE_FIELDS, *_SIZE_STAGE_FIELDS, *_OTHER_STAGE_FIELDS})
    if unknown:
        raise ValueError(f"{where} has fields that are not implemented: {', '.join(unknown)}")
    input_dim, output_dim, d_model, n_heads, n_layers, feed_forward_dim = (
        _size(stage, field, where) for field in _SIZE_STAGE_FIELDS
    )
    if d_model % (2 * n_heads):
        raise ValueError(f"{where}: d_model {d_model} does not split into num_heads {n_heads} heads of even size")
    if window < 1:
        raise ValueError(f"{where}: causal_transformer_context_duration is shorter than one row of this stage")
    max_period = _positive({"max_period": 10000, **stage}, "max_period", where)
    layer_scale = None if stage.get("layer_scale") is None else float(stage["layer_scale"])
    return TransformerShape(
        input_dim=input_dim,
        output_dim=output_dim,
        d_model=d_model,
        n_heads=n_heads,
        n_layers=n_layers,
        feed_forward_dim=feed_forward_dim,
        max_period=max_period,
        layer_scale=layer_scale,
        window=window,
        rows_per_frame=rows_per_frame,
    )


def _read_quantizer(d: Mapping[str, Any]) -> QuantizerShape:
    where = "codec config: quantizer_kwargs"
    kwargs = _field(d, "quantizer_kwargs", "codec config")
    quantizer_type = kwargs.get("quantizer_type", d.get("quantizer_type", "rlfq"))
    if quantizer_type not in _QUANTIZER_TYPES:
        raise ValueError(f"{where}.quantizer_type is {quantizer_type!r}, implemented are {', '.join(_QUANTIZER_TYPES)}")
    input_dim = _size(kwargs, "input_dim", where)
    return QuantizerShape(
        input_dim=input_dim,
        rvq_dim=_size({"rvq_dim": input_dim, **kwargs}, "rvq_dim", where),
        output_dim=_size({"output_dim": input_dim, **kwargs}, "output_dim", where),
        n_codebooks=_size(kwargs, "num_quantizers", where),
        codebook_size=_size(kwargs, "codebook_size", where),
        codebook_dim=_size(kwargs, "codebook_dim", where),
    )


def _sampling_rate(d: Mapping[str, Any]) -> int:
    """`sample_rate` is the reference's second name for `sampling_rate`."""
    rates = [_size(d, name, "codec config") for name in ("sampling_rate", "sample_rate") if name in d]
    if len(set(rates)) != 1:
        raise ValueError(f"codec config: sampling_rate and sample_rate say {rates}, expected one rate in Hz")
    return rates[0]


def _field(d: Mapping[str, Any], name: str, where: str) -> Any:
    if d.get(name) is None:
        raise ValueError(f"{where} has no {name}; is this the config of a MOSS-Audio-Tokenizer checkpoint?")
    return d[name]


def _size(d: Mapping[str, Any], name: str, where: str) -> int:
    value = _field(d, name, where)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{where}.{name} is {value!r}, expected a positive integer")
    return value


def _positive(d: Mapping[str, Any], name: str, where: str) -> float:
    value = _field(d, name, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{where}.{name} is {value!r}, expected a positive number")
    return float(value)
