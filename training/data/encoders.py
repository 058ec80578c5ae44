"""An encoding process: waveforms to codes, on one device, by the server's own windowed encoder.

    waveforms on disk -> ClipEncoder: a window of each clip that has a slot -> SteadyRunner -> codes

Run by `workers.Worker`. The first message is an `EncoderSettings`, answered by `Ready` or `Failure`; each further one a
list of `EncodeTask`, and each answer an `EncodedClip`.

The codes of a clip are the same whatever is encoded beside it, so that a run which was broken off and gone on with ends
like any other: on a GPU, where another shape of batch means other roundings, every step has all slots and a number of
frames that depends on the clip alone; on a CPU clips are encoded one by one.
"""

import time
from collections.abc import Hashable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .messages import EncodedClip, EncoderSettings, Failure, Ready
from .workers import parent

if TYPE_CHECKING:
    from sglang_moss.codec.encoder_runner import EncoderRunner

SLOTS = 8  # with windows of 64 frames the most that a step takes
_SHORTEST = 8  # frames; shorter windows are padded to it, as the runner pads them


class SteadyRunner:
    """An `EncoderRunner` whose codes of a clip do not depend on what is encoded beside it."""

    def __init__(self, runner: "EncoderRunner", *, whole_batches: bool) -> None:
        """
        Args:
            whole_batches: encode all slots in every step, empty ones too; else one clip a step.
        """
        self._runner = runner
        self._whole_batches = whole_batches
        self.n_slots = runner.n_slots
        self.window_frames = runner.window_frames
        self.frame_samples = runner.frame_samples

    def reset(self, slot: int) -> None:
        self._runner.reset(slot)

    def encode(self, windows: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray]:
        """As `EncoderRunner.encode`, in as many steps as there are lengths of windows, or clips."""
        codes: dict[int, np.ndarray] = {}
        for group in self._groups(windows):
            at = {slots[i]: windows[i] for i in group}
            if self._whole_batches:
                nothing = np.empty(0, np.float32)
                at |= {slot: nothing for slot in range(self.n_slots) if slot not in at}
            encoded = self._runner.encode(list(at.values()), list(at))
            codes |= {slot: of for slot, of in zip(at, encoded, strict=True) if len(of)}
        return [codes[slot] for slot in slots]

    def _groups(self, windows: Sequence[np.ndarray]) -> list[list[int]]:
        """Indices of windows that share a step."""
        if not self._whole_batches:
            return [[i] for i in range(len(windows))]
        groups: dict[int, list[int]] = {}
        for i, window in enumerate(windows):
            n_frames = max(_SHORTEST, len(window) // self.frame_samples)
            groups.setdefault((n_frames - 1).bit_length(), []).append(i)
        return list(groups.values())


def serve(connection: Connection, runner: SteadyRunner) -> None:
    """Encode what comes, until nobody is there any more.

    Raises:
        RuntimeError: a clip failed by itself, which is the encoder's fault: every waveform has codes.
    """
    from sglang_moss.decode.clip_encoder import ClipEncoder

    encoder = ClipEncoder(runner, spare_slot=False)
    paths: dict[Hashable, Path] = {}
    busy_s = 0.0

    def send(key: Hashable, codes: list[np.ndarray] | None) -> None:
        if codes is None:
            raise RuntimeError(f"the encoder failed on {paths[key]}")
        del paths[key]
        connection.send(EncodedClip(key, codes[0], busy_s + time.monotonic() - began))

    busy = False
    while True:
        while connection.poll(0 if busy else None):
            for task in connection.recv():
                samples = np.memmap(task.waveform, np.float32, "r", shape=task.n_frames * runner.frame_samples)
                paths[task.key] = task.waveform
                encoder.open(task.key, [samples])
            busy = True
        began = time.monotonic()
        busy = encoder.step(send)
        busy_s += time.monotonic() - began


def main() -> None:
    connection = parent()
    try:
        settings: EncoderSettings = connection.recv()
        try:
            runner, device_name = _load(settings)
        except Exception as error:  # whatever it is, the parent says it
            connection.send(Failure(f"the codec cannot be loaded on {settings.device}: {error}"))
            return
        connection.send(Ready(device_name))
        try:
            serve(connection, runner)
        except RuntimeError as error:  # torch's too: out of memory, a device that is lost
            connection.send(Failure(f"encoding on {settings.device} failed: {error}"))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone


def _load(settings: EncoderSettings) -> tuple[SteadyRunner, str]:
    import torch

    from sglang_moss.codec.encoder_runner import EncoderRunner

    device = torch.device(settings.device)
    on_gpu = device.type == "cuda"
    if on_gpu and device.index is not None:
        torch.cuda.set_device(device)
    codec = settings.codec.load(device)
    runner = EncoderRunner(codec, settings.n_vq, n_slots=SLOTS if on_gpu else 1)
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    return SteadyRunner(runner, whole_batches=on_gpu), name
