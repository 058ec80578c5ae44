"""Listens to codecs while they train: `python -m small_voice.listen CODECS BEST --every 120 --ends SECONDS_SINCE_1970`.

Whenever CODECS/NAME/codec has changed and it is time, fifty sentences that are in no training data go through it and a
recogniser; the codec with the fewest word errors so far, of all runs, lies in BEST with `choice.json`, its figures and
everything heard before it. Called again with the same BEST it goes on. `--once` listens once and ends. Without a
recogniser the nearest spectrum is best.
"""

import argparse
import json
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sglang_moss.devices import device_problem

from .codec_config import WEIGHTS
from .evaluate_codec import reconstruct, write_wav
from .hearing import error_rate, hear_all
from .held_out import judged_sentences
from .voices import NAMES, Voices


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("codecs", type=Path)
    parser.add_argument("best", type=Path)
    parser.add_argument("--every", type=float, default=120.0)
    parser.add_argument("--ends", type=float, default=float("inf"))
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--wavs", type=Path)
    args = parser.parse_args()
    if (problem := device_problem(args.device)) is not None:
        parser.error(f"--device: {problem}")
    texts = judged_sentences()[: args.sentences]
    voices = Voices()
    said = [voices.speak(NAMES[i % len(NAMES)], text, i) for i, text in enumerate(texts)]
    path = args.best / "choice.json"
    history: list[dict] = json.loads(path.read_text())["history"] if path.is_file() else []
    seen = {row["codec"]: row["step"] for row in history}
    hears = find_spec("pocketsphinx") is not None
    if not history and hears:
        history.append({"codec": "source", "step": 0, "wer": error_rate(texts, hear_all(said, args.processes))})
        print(f"listen: source {history[0]['wer']:.3f}", flush=True)
    while True:
        started = time.time()
        for run in sorted(args.codecs.glob("*/codec")):
            if not (run / "figures.json").is_file():
                continue
            copy = args.best.with_name(".heard")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run, copy)
            figures = json.loads((copy / "figures.json").read_text())
            name = run.parent.name
            if figures["step"] == seen.get(name) or not (copy / WEIGHTS).is_file():
                continue
            seen[name] = figures["step"]
            made, mel = reconstruct(copy, said, args.device)
            row = {"codec": name, "step": figures["step"], "mel": round(mel, 4)}
            if hears:
                row["wer"] = error_rate(texts, hear_all(made, args.processes))
            measure = "wer" if hears else "mel"
            before = min((r[measure] for r in history if r["codec"] != "source"), default=9.0)
            history.append(row)
            better = row[measure] <= before
            print(f"listen: {row}{'  <- best' if better else ''}, {time.time() - started:.0f} s", flush=True)
            if better:
                shutil.rmtree(args.best, ignore_errors=True)
                copy.rename(args.best)
                _write_wavs(args.wavs, made, said)
            if args.best.is_dir():
                (args.best / "choice.json").write_text(json.dumps({"history": history}, indent=1))
        if args.once or time.time() + args.every > args.ends:
            break
        time.sleep(max(1.0, args.every - (time.time() - started)))


def _write_wavs(directory: Path | None, made: list[np.ndarray], said: list[np.ndarray]) -> None:
    if directory is None:
        return
    directory.mkdir(parents=True, exist_ok=True)
    for i in range(min(8, len(said))):
        write_wav(directory / f"codec-{i}-{NAMES[i % len(NAMES)]}.wav", made[i])
        write_wav(directory / f"source-{i}-{NAMES[i % len(NAMES)]}.wav", said[i])


if __name__ == "__main__":
    main()
