"""Encoding of clips window by window: on a GPU one captured graph a window, on a CPU as they come.

    pinned host    slots, frames | samples    -- two copies -->   GPU   graph of (clips, frames)
    pinned host    codes                      <-- one copy --

What a step needs is allocated when this is built, however long the clips are: the keys and values that a clip's next
window looks back at, and the activations of the largest step.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.graphs import ABOVE_THE_DECODER, capture_steps
from sglang_moss.codec.precision import FP16X3, IEEE
from sglang_moss.codec.step_shapes import Shape, StepShapes

# Of one clip in one step: two steps cost more than one of both lengths, but streams that are decoded in the same thread
# wait for each. At the real shape 5 and 10 s; steps of three clips take an H200 34 and 28 ms.
WINDOW_FRAMES = {IEEE: 64, FP16X3: 128}
# Of its kernels: on tensor cores they leave room for the language model's beside them, and stand where those do.
_PRIORITY = {IEEE: 0, FP16X3: ABOVE_THE_DECODER}
SLOTS = 3  # clips at a time; a slot takes 138 MB at the real shape
_MIN_FRAMES = 8  # shorter windows are padded: fewer graphs to capture


class EncoderRunner:
    """Encodes windows of some clips at a time, each continuing where its slot of the encoder's state stands.

    One thread builds it, before the weights come if it likes, and then one thread uses it; these may be two.
    """

    def __init__(self, codec: Codec, n_vq: int, *, n_slots: int = SLOTS, window_frames: int | None = None) -> None:
        """
        Args:
            n_vq: codebooks of the codes.
            n_slots: clips that can be under way, and the most of one step.
            window_frames: the most frames of a clip in one step; None: as many as suit the encoder's precision.
        """
        window_frames = window_frames or WINDOW_FRAMES[codec.encoder_precision]
        self.n_slots = n_slots
        self.window_frames = window_frames
        self.frame_samples = codec.config.frame_samples
        self._codec = codec
        self._n_vq = n_vq
        self._state = codec.new_encoder_state(n_slots)
        self._shapes = StepShapes(n_slots, window_frames, _MIN_FRAMES)
        self._on_gpu = codec.device.type == "cuda"
        n_frames = n_slots * window_frames
        with torch.inference_mode(False):
            self._host_in = torch.zeros(2 * n_slots, dtype=torch.int32, device="cpu", pin_memory=self._on_gpu)
            self._host_samples = torch.zeros(
                n_frames * self.frame_samples, dtype=torch.float32, device="cpu", pin_memory=self._on_gpu
            )
            self._host_codes = torch.zeros(n_frames * n_vq, dtype=torch.int16, device="cpu", pin_memory=self._on_gpu)
            self._in = self._host_in.to(codec.device)  # on a CPU these are the host's
            self._samples = self._host_samples.to(codec.device)
            self._codes = self._host_codes.to(codec.device)
        if self._on_gpu:
            self._stream = torch.cuda.Stream(codec.device, priority=_PRIORITY[codec.encoder_precision])
            self._encoded = torch.cuda.Event(blocking=True)  # a spinning wait would take a core from the scheduler
            self._graphs = capture_steps(self._step, self._shapes.all(), self._stream)  # zero frames each

    def reset(self, slot: int) -> None:
        """Make a slot fresh, whatever it held."""
        with torch.cuda.stream(self._stream) if self._on_gpu else nullcontext():
            self._state.reset(slot)

    def encode(self, windows: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray]:
        """Encode the next frames of some clips; waits for the codes without holding the interpreter.

        Args:
            windows: each [t * frame_samples] float32, t from 1 to `window_frames`.
            slots: as many, all different.
        Returns:
            For each, [t, n_vq] int16.
        Raises:
            ValueError: a window is no whole number of frames, or too long, or a slot comes twice.
            OverflowError: in `fp16x3`, something in the encoder was too large for it.
        """
        n_frames = [len(window) // self.frame_samples for window in windows]
        if len(set(slots)) != len(windows) or any(
            n * self.frame_samples != len(w) for n, w in zip(n_frames, windows, strict=True)
        ):
            raise ValueError(f"expected whole frames for different slots, got {list(map(len, windows))} for {slots}")
        shape = self._shapes.smallest(len(windows), max(n_frames))
        if not self._on_gpu:
            shape = (len(windows), max(n_frames))
        n_clips, n_steps = shape
        index = self._host_in.numpy()
        index[: 2 * n_clips] = [*slots, *[self._state.scratch_slot] * (n_clips - len(slots)), *n_frames] + [0] * (
            n_clips - len(slots)
        )
        samples = self._host_samples.numpy()[: n_clips * n_steps * self.frame_samples].reshape(n_clips, -1)
        for i, window in enumerate(windows):
            samples[i, : len(window)] = window  # what follows is padding, of earlier steps perhaps
        if self._on_gpu:
            self._replay(shape)
        else:
            self._step(shape)
        codes = self._host_codes.numpy()[: n_clips * n_steps * self._n_vq].reshape(n_clips, n_steps, self._n_vq)
        found = [codes[i, :n].copy() for i, n in enumerate(n_frames)]
        if any((of < 0).any() for of in found):
            raise OverflowError("this codec's encoder is too large for fp16x3: take --codec-encoder-precision ieee")
        return found

    @torch.inference_mode()
    def _step(self, shape: Shape) -> None:
        """From `_in` and `_samples` to `_codes`, without a look at their values."""
        n_clips, n_steps = shape
        slots, n_frames = self._in[:n_clips], self._in[n_clips : 2 * n_clips]
        samples = self._samples[: n_clips * n_steps * self.frame_samples].view(n_clips, -1)
        codes = self._codec.encode_step(self._state, samples, n_frames, slots, self._n_vq)
        self._codes[: codes.numel()].view_as(codes).copy_(codes)

    @torch.inference_mode()
    def _replay(self, shape: Shape) -> None:
        n_clips, n_frames = shape[0], shape[0] * shape[1]
        with torch.cuda.stream(self._stream):
            for host, device, n in (
                (self._host_in, self._in, 2 * n_clips),
                (self._host_samples, self._samples, n_frames * self.frame_samples),
            ):
                device[:n].copy_(host[:n], non_blocking=True)
            self._graphs[shape].replay()
            n = n_frames * self._n_vq
            self._host_codes[:n].copy_(self._codes[:n], non_blocking=True)
            self._encoded.record()
        self._encoded.synchronize()
