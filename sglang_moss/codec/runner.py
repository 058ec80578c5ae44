"""Decoding steps from host arrays to host arrays: on a GPU one captured graph each, on a CPU as they come.

    pinned host        slots, frames, codes  -- one copy -->   GPU   graph of (streams, frames)
    pinned host        finite?, 16-bit PCM   <-- one copy --

A batch is padded to the next shape with entries that have no frames and name the scratch slot.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.graphs import capture_steps
from sglang_moss.codec.pcm import to_pcm16
from sglang_moss.codec.state import CodecState
from sglang_moss.codec.step_shapes import StepShapes


class DecoderRunner:
    """Decodes stretches of many streams, each continuing where its slot of the state stands.

    One thread builds it, which captures the graphs, and then one thread uses it; these may be two. Nothing else may
    write into the state.
    """

    def __init__(self, codec: Codec, state: CodecState, n_vq: int, *, max_streams: int, max_frames: int) -> None:
        """
        Args:
            n_vq: codebooks of every stretch.
            max_streams: the most streams of one step.
            max_frames: the longest stretch of a stream in one step.
        """
        self._codec = codec
        self._state = state
        self._n_vq = n_vq
        self._frame_samples = codec.config.frame_samples
        self._shapes = StepShapes(max_streams, max_frames)
        shapes = self._shapes.all()
        n_in = max(self._codes_start(s) + s * f * n_vq for s, f in shapes)
        n_out = max(s + s * f * self._frame_samples for s, f in shapes)
        self._on_gpu = codec.device.type == "cuda"
        self.pads_freely = self._on_gpu  # a small step takes the time of its launches
        with torch.inference_mode(False):
            self._host_in = torch.zeros(n_in, dtype=torch.int32, device="cpu", pin_memory=self._on_gpu)
            self._host_out = torch.zeros(n_out, dtype=torch.int16, device="cpu", pin_memory=self._on_gpu)
            self._in = self._host_in.to(codec.device)  # on a CPU these are the host's
            self._out = self._host_out.to(codec.device)
        self._numpy_in, self._numpy_out = self._host_in.numpy(), self._host_out.numpy()
        if self._on_gpu:
            self._stream = torch.cuda.Stream(codec.device)
            self._decoded = torch.cuda.Event(blocking=True)  # a spinning wait would take a core from the scheduler
            self._in.zero_()  # no entry has frames: nothing of the state changes
            self._graphs = capture_steps(self._step, shapes, self._stream)

    def largest_batch(self, n_frames: int) -> int:
        """How many streams fit one step whose longest stretch has `n_frames`; ValueError beyond `max_frames`."""
        return self._shapes.largest_batch(n_frames)

    def reset(self, slot: int) -> None:
        """Make a slot fresh, whatever it held."""
        with self._on_stream():
            self._state.reset(slot)

    def copy_slot(self, source: int, target: int) -> None:
        """Let `target` continue where `source` stands; `source` stays as it is."""
        with self._on_stream():
            self._state.copy_slot(source, target)

    def decode(self, stretches: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray | None]:
        """Decode the next frames of some streams; waits for the result without holding the interpreter.

        Args:
            stretches: each [t, n_vq] integers, t from 0 to `max_frames`; codes out of range are clamped.
            slots: as many, all different.
        Returns:
            For each, [t * frame_samples] int16, or None where a sample is NaN or infinite.
        Raises:
            ValueError: more streams or frames than a step takes, or a slot twice; nothing was decoded.
        """
        n_frames = [len(stretch) for stretch in stretches]
        if len(set(slots)) != len(stretches):
            raise ValueError(f"{len(stretches)} stretches need as many different slots, got {list(slots)}")
        if max(n_frames, default=0) == 0:
            return [np.empty(0, np.int16) for _ in stretches]
        shape = self._shapes.smallest(len(stretches), max(n_frames))
        if not self._on_gpu:
            shape = (len(stretches), max(n_frames))
        self._fill(shape, stretches, n_frames, slots)
        if self._on_gpu:
            self._replay(shape)
        else:
            self._step(shape)
        return self._results(shape, n_frames)

    def _fill(
        self, shape: tuple[int, int], stretches: Sequence[np.ndarray], n_frames: list[int], slots: Sequence[int]
    ) -> None:
        n_streams, n_steps = shape
        n_real = len(stretches)
        buffer = self._numpy_in
        buffer[:n_real] = slots
        buffer[n_real:n_streams] = self._state.scratch_slot
        buffer[n_streams : n_streams + n_real] = n_frames
        buffer[n_streams + n_real : 2 * n_streams] = 0
        codes = buffer[self._codes_start(n_streams) :][: n_streams * n_steps * self._n_vq]
        codes = codes.reshape(n_streams, n_steps, self._n_vq)
        for b, stretch in enumerate(stretches):
            codes[b, : n_frames[b]] = stretch

    def _results(self, shape: tuple[int, int], n_frames: list[int]) -> list[np.ndarray | None]:
        n_streams, n_steps = shape
        finite = self._numpy_out[:n_streams].tolist()
        width = n_steps * self._frame_samples
        starts = range(n_streams, self._n_out(shape), width)
        return [
            self._numpy_out[start : start + n * self._frame_samples].copy() if good else None
            for start, n, good in zip(starts, n_frames, finite, strict=False)
        ]

    @torch.inference_mode()
    def _step(self, shape: tuple[int, int]) -> None:
        """From `_in` to `_out`, without a look at their values."""
        n_streams, n_steps = shape
        slots, n_frames = self._in[:n_streams], self._in[n_streams : 2 * n_streams]
        codes = self._in[self._codes_start(n_streams) :][: n_streams * n_steps * self._n_vq]
        samples = self._codec.decode_step(self._state, codes.view(n_streams, n_steps, self._n_vq), n_frames, slots)
        self._out[:n_streams] = samples.isfinite().all(dim=1)
        self._out[n_streams : self._n_out(shape)].view_as(samples).copy_(to_pcm16(samples))

    @torch.inference_mode()
    def _replay(self, shape: tuple[int, int]) -> None:
        n_in = self._codes_start(shape[0]) + shape[0] * shape[1] * self._n_vq
        n_out = self._n_out(shape)
        with torch.cuda.stream(self._stream):
            self._in[:n_in].copy_(self._host_in[:n_in], non_blocking=True)
            self._graphs[shape].replay()
            self._host_out[:n_out].copy_(self._out[:n_out], non_blocking=True)
            self._decoded.record()
        self._decoded.synchronize()

    def _on_stream(self) -> torch.cuda.StreamContext | nullcontext:
        return torch.cuda.stream(self._stream) if self._on_gpu else nullcontext()

    def _codes_start(self, n_streams: int) -> int:
        return 2 * n_streams

    def _n_out(self, shape: tuple[int, int]) -> int:
        return shape[0] + shape[0] * shape[1] * self._frame_samples
