"""A demonstration from checkpoints to a WAV file: `python -m sglang_moss.clients.demo`.

Fuses the tiny checkpoints that come with the project's tests, starts the real server with them on a free port, sends a
dialogue of two speakers with a reference clip each, checks the audio and stops the server. The weights are random, so
the speech is babble; everything else is what a server with the published weights does. It runs on the CPU, also where
there is a GPU: nothing this small needs one.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import soundfile

from ..fuse import FuseError, fuse
from .client import MossClient
from .errors import ClientError
from .local_server import LocalServer, ServerFailed
from .request import Reference
from .start_log import StartProgress

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
SCRIPT = "[S1] Shall we walk along the river today? [S2] Yes, let us take the old bridge. [S1] Then we meet at noon."
TRANSCRIPTS = {"spk1_24k.wav": "We met near the station yesterday.", "spk2_24k.wav": "今天我们聊聊音乐。"}
SEED = 2026
_SERVER_ENV = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
_NEXT = """\
next:
  listen to {output}; the weights are random, so it babbles
  make serve    keeps a server of these weights; open http://127.0.0.1:30000/ or ask it from another terminal:
    .venv/bin/moss-ttsd say "[S1] Hello. [S2] Good evening." -o outputs/demo.hello.wav
  speak with the published weights: "Serve the real model" in README.md\
"""
_LEAST_RMS = 1e-3  # of any second, full scale is 1; the babble has 0.1


class DemoFailed(RuntimeError):  # noqa: N818 (named for what happened)
    """The audio is not what was asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with `argv` (default: the command line); returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sglang_moss.clients.demo", description="From checkpoints to a WAV."
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/demo.wav"), help="WAV file to write")
    parser.add_argument("--seconds", type=float, default=6.0, help="how much to speak")
    args = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)  # so that the server is stopped on the way out
    try:
        run(args.output, args.seconds)
    except (ClientError, DemoFailed, FuseError, OSError, ServerFailed, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing is left running", file=sys.stderr)
        return 130
    return 0


def run(output: Path, seconds: float) -> None:
    """Fuse, serve, speak `seconds` into `output`, and check it.

    Raises:
        DemoFailed, FuseError, ServerFailed, ClientError: in the order of the steps that may fail.
    """
    if not GOLDEN.is_dir():
        raise DemoFailed(f"{GOLDEN} is missing: run the demo in a checkout of the project")
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".server.log")
    checkpoint = output.with_suffix(".fused")
    print("1/4 fusing two tiny checkpoints; their weights are random, so expect babble and no words", flush=True)
    shutil.rmtree(checkpoint, ignore_errors=True)  # of an earlier demo
    print(f"    {fuse(GOLDEN / 'ttsd', GOLDEN / 'codec', checkpoint, show_progress=False)}")
    print(f"2/4 starting `sglang serve` with them, which takes one to two minutes (log: {log})", flush=True)
    started = time.monotonic()
    with LocalServer(checkpoint, log=log, env=_SERVER_ENV, on_progress=_show_progress) as server:
        print(f"    {time.monotonic() - started:3.0f} s  ready at {server.url}", flush=True)
        print(f"3/4 asking for {seconds:g} s of a dialogue with two reference clips", flush=True)
        result = _speak(server.url, output, seconds)
        print("4/4 stopping the server", flush=True)
    print(f"{result}\n\n{_NEXT.format(output=output)}")


def check_sound(path: Path, seconds: float) -> None:
    """Whether a file really holds sound from start to end.

    Raises:
        DemoFailed: it is shorter or longer than `seconds` by a frame of 0.08 s or more, or some second of it is silent.
    """
    samples, rate = soundfile.read(path, dtype="float64")
    if abs(len(samples) / rate - seconds) >= 0.08:
        raise DemoFailed(f"{path} lasts {len(samples) / rate:.3f} s, expected {seconds:.3f} s")
    for start in range(0, len(samples), rate):
        part = samples[start : start + rate]
        rms = np.sqrt(np.mean(part**2))
        if rms < _LEAST_RMS:
            raise DemoFailed(f"{path} is silent from {start / rate:g} s on: rms {rms:.2g}, expected {_LEAST_RMS:g}")


def _speak(url: str, output: Path, seconds: float) -> str:
    """Write and check the speech; returns a line about it."""
    audio = GOLDEN / "cases" / "audio"
    references = [Reference(audio / name, transcript) for name, transcript in TRANSCRIPTS.items()]
    started = time.monotonic()
    with MossClient(url) as client:
        speech = client.generate(SCRIPT, references, max_seconds=seconds, exact_length=True, seed=SEED)
    took_s = time.monotonic() - started
    output.write_bytes(speech.wav)
    check_sound(output, seconds)
    return f"{speech.seconds:.2f} s of audio, {speech.frames} frames, in {took_s:.2f} s: {output}"


def _show_progress(progress: StartProgress) -> None:
    print(f"    {progress}", flush=True)


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
