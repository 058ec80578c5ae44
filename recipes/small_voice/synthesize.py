"""Make training speech on all cores: `python -m small_voice.synthesize OUTPUT --hours 400 --processes 60`.

Utterance i has the text `Sentences(seed).turn(i)` and a voice drawn by i; process k makes i = k, k + n, k + 2n ...
A run that is cut leaves a prefix of every file.
"""

import argparse
import multiprocessing
import os
import random
import time
from pathlib import Path

from .held_out import held_out_sentences
from .sentences import Sentences
from .speech_store import Writer
from .voices import SHARES, Voices


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--hours", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.time()
    context = multiprocessing.get_context("spawn")
    each = args.hours * 3600 / args.processes
    made = [context.Value("d", 0.0) for _ in range(args.processes)]
    processes = [
        context.Process(target=_work, args=(args.output, k, args.processes, each, args.seconds, args.seed, made[k]))
        for k in range(args.processes)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        time.sleep(1 if time.time() - started < 20 else 20)
        hours = sum(value.value for value in made) / 3600
        n_alive = sum(process.is_alive() for process in processes)
        print(f"speech: {time.time() - started:.0f} s, {hours:.2f} h by {n_alive} processes", flush=True)


def _work(output: Path, k: int, n: int, max_s: float, seconds: float, seed: int, made) -> None:
    os.nice(10)
    ends = time.time() + seconds
    sentences = Sentences(seed, held_out_sentences())
    voices, writer = Voices(), Writer(output, k)
    i = k
    while writer.seconds < max_s and time.time() < ends:
        voice = random.Random(f"voice {seed} {i}").choices(list(SHARES), list(SHARES.values()))[0]
        text = sentences.turn(i)
        try:
            writer.put(text, voice, voices.speak(voice, text, i))
        except Exception as error:  # one utterance that a synthesiser cannot speak is no loss
            print(f"utterance {i} ({voice}: {text!r}) is left out: {error!r}", flush=True)
        made.value = writer.seconds
        i += n


if __name__ == "__main__":
    main()
