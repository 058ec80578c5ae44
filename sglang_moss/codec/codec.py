"""The codec: waveforms to codes and codes to waveforms, in one shot or step by step.

    encode                    samples -> encoder stages -> quantizer -> codes [T, n_codebooks]
    decode                    codes -> quantizer -> decoder stages -> samples
    encode_step, decode_step  the same for many at once, each continuing where its slot of a `CodecState` stands

Every transformer is the exact sliding window, so steps of any size give what one shot gives, up to rounding.

Source: MOSS-Audio-Tokenizer `encode` and `decode` without `chunk_duration`.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sglang_moss.codec.config import CodecConfig, StageShape, TransformerShape
from sglang_moss.codec.patching import Patch, Unpatch
from sglang_moss.codec.precision import FP16X3, IEEE, pack_fp16x3, unpack_fp16x3, use_dtype, use_fp16x3
from sglang_moss.codec.quantizer import Quantizer
from sglang_moss.codec.ring import SlotBatch
from sglang_moss.codec.state import CodecState
from sglang_moss.codec.transformer import TransformerStage
from sglang_moss.codec.weights import load_strictly


class Codec(nn.Module):
    """MOSS-Audio-Tokenizer in float32, on the default device in force when it is built.

    `load_weights`, or another way of filling the parameters and then `post_load`, comes before any use. After it
    `to_serving_dtype` may halve the decoder's weights.
    """

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config = config
        self.encoder = _stages(config.encoder, Patch)
        self.quantizer = Quantizer(config.quantizer)
        self.decoder = _stages(config.decoder, Unpatch)
        self.requires_grad_(False)
        self.serving_dtype = torch.float32
        self.encoder_precision = IEEE
        self._tables_filled = False

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Fill every parameter from (name, tensor) pairs named as in the codec's own checkpoint, then `post_load`.

        Raises:
            ValueError: a name is missing, unexpected or doubled, or a shape is wrong; the message names it.
        """
        unpack_fp16x3(self.encoder)
        load_strictly(self, tensors)
        self.post_load()

    def post_load(self) -> None:
        """Derive from the weights in force, in place, the quantizer's tables, and with `fp16x3` the encoder's halves.

        Raises:
            ValueError: an encoder's weight is too large for halves; the message names it.
        """
        pack_fp16x3("encoder", self.encoder)
        self.quantizer.post_load()
        self._tables_filled = True

    def to_encoder_precision(self, precision: str) -> None:
        """Have the products of the encoder's layers so from now on; to be called before the weights come.

        Args:
            precision: "ieee", in float32, or "fp16x3", on tensor cores and nearly as exact (`Fp16x3Linear`).
        Raises:
            ValueError: another precision.
        """
        if precision not in (IEEE, FP16X3):
            raise ValueError(f"the encoder's precision is ieee or fp16x3, not {precision!r}")
        if precision == FP16X3:
            use_fp16x3(self.encoder)
        self.encoder_precision = precision

    def to_serving_dtype(self, dtype: torch.dtype) -> None:
        """Keep the linear weights of the decoder's layers, and by default its states, in `dtype` from now on.

        What is half then is the operands of the layers' matrix products; all else stays float32 (`TransformerLayer`),
        the encoder, the quantizer and the projections between stages as a whole.

        Raises:
            ValueError: a weight is not finite in `dtype`; the message names it, and nothing was changed.
        """
        use_dtype("decoder", self.decoder, dtype)
        self.serving_dtype = dtype

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode whole waveforms, all in one padded pass.

        Args:
            waveforms: each [L] floating point at `config.sampling_rate`, any lengths.
        Returns:
            For each, [T, n_codebooks] int64 with T = L // frame_samples: a last partial frame is left out.
        Raises:
            ValueError: a waveform is not one-dimensional floating point.
        """
        self._require_tables()
        for i, waveform in enumerate(waveforms):
            if waveform.dim() != 1 or not waveform.is_floating_point():
                raise ValueError(f"waveform {i} is {waveform.dtype} {list(waveform.shape)}, expected float samples [L]")
        frame = self.config.frame_samples
        n_frames = [len(waveform) // frame for waveform in waveforms]
        longest = max(n_frames, default=0)
        if longest == 0:
            return [self._no_codes() for _ in waveforms]
        # Causal stages: what follows a frame cannot change it, so neither the partial frame nor padding is heard.
        samples = torch.zeros(len(waveforms), longest * frame, dtype=self.dtype, device=self.device)
        for i, waveform in enumerate(waveforms):
            samples[i, : n_frames[i] * frame] = waveform[: n_frames[i] * frame]
        codes = self.quantizer.encode(self.encoder_hidden(samples))
        return [codes[i, :n].clone() for i, n in enumerate(n_frames)]

    def encoder_hidden(self, samples: Tensor) -> Tensor:
        """Encoder output before the quantizer: [B, T * frame_samples] -> [B, T, quantizer input_dim]."""
        return _run(self.encoder, samples[:, :, None])

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode a whole run of frames.

        Args:
            codes: [T, n] integers in [0, codebook_size), the first n <= n_codebooks codebooks.
        Returns:
            [T * frame_samples] float32.
        Raises:
            ValueError: another shape or dtype, or a code out of range.
        """
        self._require_tables()
        self._require_codes(codes, n_dims=2, shape="[T, n]")
        if len(codes) == 0:
            return torch.zeros(0, dtype=self.dtype, device=self.device)
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= self.config.codebook_size:
            raise ValueError(
                f"codes span {low} to {high}, expected 0 to {self.config.codebook_size - 1}; "
                "remove the delay pattern and its pad codes before decoding"
            )
        x = self.quantizer.decode(codes.to(self.device, torch.int64)[None])
        return _run(self.decoder, x).flatten()

    def new_state(self, n_slots: int, dtype: torch.dtype | None = None) -> CodecState:
        """Fresh decoder state of `n_slots` slots, on the codec's device; its dtype may be told before the weights'."""
        return CodecState.allocate(self.config.decoder, n_slots, self.device, dtype or self.serving_dtype)

    def new_encoder_state(self, n_slots: int) -> CodecState:
        """Fresh encoder state of `n_slots` slots, float32 on the codec's device."""
        return CodecState.allocate(self.config.encoder, n_slots, self.device, self.dtype)

    def slot_bytes(self, dtype: torch.dtype) -> int:
        """What one slot of `new_state` costs in `dtype`, known without allocating it."""
        return CodecState.slot_bytes(self.config.decoder, dtype)

    @torch.inference_mode()
    def encode_step(
        self, state: CodecState, samples: Tensor, n_frames: Tensor, slots: Tensor, n_codebooks: int | None = None
    ) -> Tensor:
        """Encode the next frames of some clips; only shapes are looked at on the host.

        Runs on weights of any values, before `post_load` too, so that memory and graphs can be had in advance.

        Args:
            state: from `new_encoder_state`; the slots that take part move on, all others stay as they are.
            samples: [B, T * frame_samples] float32, whole frames.
            n_frames: [B] integers, entry b has n_frames[b] <= T frames; what follows them is padding.
            slots: [B] integers in [0, n_slots], as in `decode_step`.
            n_codebooks: only the first so many; None: all.
        Returns:
            [B, T, n_codebooks] int64, anything in the padding; with `fp16x3` -1 in frames of which halves could not
            hold something.
        """
        slots, n_frames = slots.to(torch.int64), n_frames.to(torch.int64)
        batch = SlotBatch(slots, state.frames_seen[slots], n_frames, state.scratch_slot)
        hidden = _run(self.encoder, samples[:, :, None], batch, state)
        state.frames_seen.index_add_(0, slots, n_frames)
        codes = self.quantizer.encode(hidden, n_codebooks)
        if self.encoder_precision == FP16X3:
            codes = codes.where(hidden.isfinite().all(dim=-1, keepdim=True), -1)
        return codes

    @torch.inference_mode()
    def decode_step(self, state: CodecState, codes: Tensor, n_frames: Tensor, slots: Tensor) -> Tensor:
        """Decode the next frames of some streams; only shapes are looked at on the host.

        Args:
            state: from `new_state`; the slots that take part move on, all others stay as they are.
            codes: [B, T, n] integers, n <= n_codebooks. They are not checked: clamped to [0, codebook_size).
            n_frames: [B] integers, entry b has n_frames[b] <= T frames; what follows them is padding.
            slots: [B] integers in [0, n_slots]. Entries with frames have different slots; an entry without may name
                any slot, as `state.scratch_slot`, and leaves no trace.
        Returns:
            [B, T * frame_samples] float32, zero in the padding.
        """
        self._require_tables()
        self._require_codes(codes, n_dims=3, shape="[B, T, n]")
        n_batch, n_steps, _ = codes.shape
        if n_batch == 0 or n_steps == 0:
            return torch.zeros(n_batch, n_steps * self.config.frame_samples, dtype=self.dtype, device=self.device)
        slots, n_frames = slots.to(torch.int64), n_frames.to(torch.int64)
        batch = SlotBatch(slots, state.frames_seen[slots], n_frames, state.scratch_slot)
        x = self.quantizer.decode(codes.to(torch.int64))
        x = _run(self.decoder, x, batch, state)
        state.frames_seen.index_add_(0, slots, n_frames)
        padding = torch.arange(n_steps, device=codes.device) >= n_frames[:, None]
        return x.reshape(n_batch, n_steps, -1).masked_fill(padding[:, :, None], 0).flatten(1)

    @property
    def device(self) -> torch.device:
        return self.quantizer.decoded.device

    @property
    def dtype(self) -> torch.dtype:
        return self.quantizer.decoded.dtype

    def _no_codes(self) -> Tensor:
        return torch.zeros(0, self.config.n_codebooks, dtype=torch.int64, device=self.device)

    def _require_tables(self) -> None:
        if not self._tables_filled:
            raise RuntimeError("the codec's tables are empty: call load_weights, or fill the weights and post_load")

    def _require_codes(self, codes: Tensor, n_dims: int, shape: str) -> None:
        integers = not (codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool)
        if codes.dim() != n_dims or not integers or not 1 <= codes.shape[-1] <= self.config.n_codebooks:
            raise ValueError(
                f"codes are {codes.dtype} {list(codes.shape)}, "
                f"expected integers {shape} with n from 1 to n_codebooks {self.config.n_codebooks}"
            )


def _run(stages: nn.ModuleList, x: Tensor, batch: SlotBatch | None = None, state: CodecState | None = None) -> Tensor:
    """Rows through one side of the codec: after each slot's history and into its rings, or from position 0."""
    rings = iter(() if state is None else state.rings)
    for stage in stages:
        x = stage(x, batch, next(rings, None)) if isinstance(stage, TransformerStage) else stage(x)
    return x


def _stages(shapes: Iterable[StageShape], patching: type[Patch | Unpatch]) -> nn.ModuleList:
    """Modules at the indices that they have in the checkpoint's names."""
    return nn.ModuleList(
        TransformerStage(shape) if isinstance(shape, TransformerShape) else patching(shape.patch_size)
        for shape in shapes
    )
