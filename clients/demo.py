"""A demonstration from checkpoints to a WAV file: `python -m sglang_moss.clients.demo`.

Fuses the small voice, starts the real server with it on a free port, sends a dialogue of two speakers with a reference
clip each, checks the audio, tells what a recogniser heard, and stops the server. In a checkout without the small voice
it takes the tiny checkpoints of the project's tests: their weights are random, so the speech is babble. Everything else
is what a server with the published weights does. It runs on the CPU, also where there is a GPU: nothing this small
needs one.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from ..fuse import FuseError
from .client import MossClient
from .errors import ClientError
from .local_server import LocalServer, ServerFailed, exit_on_signals
from .request import Reference
from .small_voice import GOLDEN, NoSmallVoice, Pair, default_pair
from .speech import Speech
from .start_log import StartProgress

SCRIPT = (
    "[S1] Good evening. Did you hear the rain last night? [S2] Yes, it kept me awake for hours. "
    "[S1] They say that the sun will come back tomorrow. [S2] Then we should have lunch in the garden."
)
VOICES = ("heart", "rms")
TRANSCRIPTS = {"spk1_24k.wav": "We met near the station yesterday.", "spk2_24k.wav": "今天我们聊聊音乐。"}
SEED = 2026
_SERVER_ENV = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
_RANDOM_SECONDS = 6.0  # random weights come to no end
_MOST_SECONDS = 30.0  # the script takes about eleven
_NEXT = """\
next:
  listen to {output}{babbles}
  make serve    keeps a server of {these}, with its page at http://127.0.0.1:30000/; it runs
    .venv/bin/moss-ttsd serve {checkpoint} --port 30000
  ask it from another terminal:
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
    parser.add_argument("--seconds", type=float, help="how much to speak; the small voice ends by itself")
    args = parser.parse_args(argv)
    exit_on_signals()  # so that the server is stopped on the way out
    try:
        run(args.output, args.seconds)
    except (ClientError, DemoFailed, FuseError, NoSmallVoice, OSError, ServerFailed, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing is left running", file=sys.stderr)
        return 130
    return 0


def run(output: Path, seconds: float | None) -> None:
    """Fuse, serve, speak into `output`, check it, and tell what was heard.

    Args:
        seconds: length of the speech; None: until it ends, or six of babble.
    Raises:
        NoSmallVoice, DemoFailed, FuseError, ServerFailed, ClientError: in the order of the steps that may fail.
    """
    pair = default_pair()
    output.parent.mkdir(parents=True, exist_ok=True)
    log, checkpoint = output.with_suffix(".server.log"), output.with_suffix(".fused")
    if not pair.has_learnt:
        seconds = seconds or _RANDOM_SECONDS
        print("1/4 fusing two tiny checkpoints; their weights are random, so expect babble and no words", flush=True)
    else:
        print("1/4 fusing the small voice", flush=True)
    print(f"    {pair.fuse(checkpoint)}")
    print(f"2/4 starting `sglang serve` with them, which takes one to two minutes (log: {log})", flush=True)
    started = time.monotonic()
    with LocalServer(checkpoint, log=log, env=_SERVER_ENV, on_progress=_show_progress) as server:
        print(f"    {time.monotonic() - started:3.0f} s  ready at {server.url}", flush=True)
        length = f"{seconds:g} s of a dialogue" if seconds else "a dialogue"
        print(f"3/4 asking for {length} with two reference clips", flush=True)
        result = _speak(server.url, output, seconds, pair)
        print("4/4 stopping the server", flush=True)
    told = f"\n{_heard(output)}" if pair.has_learnt else ""
    after = _NEXT.format(
        output=output,
        babbles="" if pair.has_learnt else "; the weights are random, so it babbles",
        these="this voice" if pair.has_learnt else "these weights",
        checkpoint=checkpoint,
    )
    print(f"{result}{told}\n\n{after}")


def check_sound(path: Path, seconds: float | None) -> None:
    """Whether a file really holds sound from start to end.

    Args:
        seconds: its length; None: of a second or more, and what is left over of the last one may be silent.
    Raises:
        DemoFailed: it is shorter or longer than `seconds` by a frame of 0.08 s or more, or some second of it is silent.
    """
    samples, rate = soundfile.read(path, dtype="float64")
    expected = max(1.0, len(samples) / rate) if seconds is None else seconds
    if abs(len(samples) / rate - expected) >= 0.08:
        raise DemoFailed(f"{path} lasts {len(samples) / rate:.3f} s, expected {expected:.3f} s")
    for start in range(0, len(samples) if seconds else len(samples) - rate + 1, rate):
        part = samples[start : start + rate]
        rms = np.sqrt(np.mean(part**2))
        if rms < _LEAST_RMS:
            raise DemoFailed(f"{path} is silent from {start / rate:g} s on: rms {rms:.2g}, expected {_LEAST_RMS:g}")


def _speak(url: str, output: Path, seconds: float | None, pair: Pair) -> str:
    """Write and check the speech; returns a line about it."""
    started = time.monotonic()
    with MossClient(url) as client:
        if pair.has_learnt:
            most = seconds or _MOST_SECONDS
            fixed = seconds is not None
            speech = client.generate(SCRIPT, _references(pair), max_seconds=most, exact_length=fixed, seed=SEED)
        else:
            audio = GOLDEN / "cases" / "audio"
            references = [Reference(audio / name, transcript) for name, transcript in TRANSCRIPTS.items()]
            speech = client.generate(SCRIPT, references, max_seconds=seconds, exact_length=True, seed=SEED)
    took_s = time.monotonic() - started
    output.write_bytes(speech.wav)
    check_sound(output, None if pair.has_learnt else seconds)
    if pair.has_learnt and seconds is None:
        _check_end(speech)
    return f"{speech.seconds:.2f} s of audio, {speech.frames} frames, in {took_s:.2f} s: {output}"


def _references(pair: Pair) -> list[Reference]:
    clips = {clip.name: clip for clip in pair.clips}
    if missing := set(VOICES) - clips.keys():
        raise DemoFailed(f"the small voice has no clip of {', '.join(sorted(missing))}, only {', '.join(clips)}")
    return [Reference(clips[name].path, clips[name].text) for name in VOICES]


def _check_end(speech: Speech) -> None:
    if speech.finish_reason != "stop":
        raise DemoFailed(f"the speech came to no end by itself within {_MOST_SECONDS:g} s: {speech.finish_reason}")


def _heard(path: Path) -> str:
    """What a recogniser makes of the speech, or why nobody listens."""
    from ..evaluation.errors import CannotJudge

    try:
        from ..evaluation.clips import read_clip
        from ..evaluation.error_rates import word_errors
        from ..evaluation.recognisers import load_recogniser
        from ..evaluation.spoken_words import tokens_of

        heard = load_recogniser("pocketsphinx", None, "cpu").hear(read_clip(path)[0], "en").text
        said = re.sub(r"\[S\d\] ", "", SCRIPT)
        errors = word_errors(tokens_of(said, "en"), tokens_of(heard, "en"))
    except (CannotJudge, ModuleNotFoundError) as problem:
        return f"what a recogniser hears in it: nobody listened; {problem}"
    return f"said:  {said}\nheard: {heard}\n{errors.count} of {errors.n} words wrong, as pocketsphinx hears them"


def _show_progress(progress: StartProgress) -> None:
    print(f"    {progress}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
