"""Decoding and encoding processes without audio and without a codec, whose clips are named for what they do.

A clip `12_voice.wav` has 12 frames and the content `voice`. `bad` cannot be read, `dies` ends its process, `full` finds
the disk full; an encoder fails on the content `poison`.
"""

import hashlib
import os
import signal

import numpy as np

from sglang_moss.training.data.messages import ClipTask, DecodedClip, EncodedClip, EncodeTask, Failure, Ready
from sglang_moss.training.data.workers import parent

FRAME_SAMPLES = 4


def content_of(name: str) -> tuple[int, str]:
    n_frames, _, content = name.removesuffix(".wav").partition("_")
    return int(n_frames), content


def decoder() -> None:
    connection = parent()
    connection.recv()
    while True:
        task: ClipTask = connection.recv()
        n_frames, content = content_of(task.path.name)
        if content == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if content in ("bad", "full"):
            connection.send(f"{task.path}: bad" if content == "bad" else Failure("the disk is full"))
            continue
        code = hashlib.sha256(content.encode()).digest()
        np.full(n_frames * FRAME_SAMPLES, code[0], np.float32).tofile(task.waveform)
        connection.send(DecodedClip(task.waveform, n_frames, code, 0.0))


def encoder() -> None:
    """Codes of every frame: the first sample, and how many clips were encoded before in this process."""
    connection = parent()
    connection.recv()
    connection.send(Ready("none"))
    n_encoded = 0
    while True:
        tasks: list[EncodeTask] = connection.recv()
        for task in tasks:
            samples = np.fromfile(task.waveform, np.float32)
            assert len(samples) == task.n_frames * FRAME_SAMPLES
            if samples[0] == hashlib.sha256(b"poison").digest()[0]:
                connection.send(Failure("the encoder is lost"))
            codes = np.stack([samples[::FRAME_SAMPLES], np.full(task.n_frames, n_encoded)], axis=1)
            connection.send(EncodedClip(task.key, codes.astype(np.int16), float(n_encoded)))
            n_encoded += 1


def dying_encoder() -> None:
    parent().recv()
    raise SystemExit("no such device")
