"""What a recogniser makes of the language model's speech: `python -m small_voice.evaluate_lm CODEC OUTPUT MODEL...`

Sentences and dialogues that are in no training data, each in voices that references give (mode voice_clone), drawn by
the server's own rule at several temperatures, on every GPU at once. Prints a table; writes `figures.json` and clips.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2Tokenizer

from sglang_moss.codec.kernels import plain_torch
from sglang_moss.request.template import TTSD
from sglang_moss.request.text import normalize_text
from sglang_moss.training.distributed import World
from sglang_moss.training.example import Example
from sglang_moss.training.generation import Drawing, generate
from sglang_moss.training.model import ModelShape, empty_model
from sglang_moss.training.rows import prompt_rows
from sglang_moss.training.weights import load_weights

from .codec_config import load_codec
from .evaluate_codec import write_wav
from .hearing import error_rate, hear_all
from .held_out import judged_dialogues, judged_sentences
from .references import reference_clip
from .voices import NAMES, Voices

PAIRS = (("heart", "rms"), ("awb", "slt"), ("slt", "rms"), ("heart", "awb"))
_S_PER_LETTER, _S_MORE = 0.12, 1.0  # when speech is cut that does not end


@dataclass(frozen=True)
class Task:
    """One thing to say."""

    texts: tuple[str, ...]  # a turn each, of the voices in turn
    voices: tuple[str, ...]
    temperature: float
    model: int
    kind: str
    continues: bool = False  # behind the references and their words, as the speech API has it

    @property
    def script(self) -> str:
        turns = [f"[S{i % len(self.voices) + 1}]{text}" for i, text in enumerate(self.texts)]
        return normalize_text("".join(turns))

    @property
    def max_frames(self) -> int:
        return int((sum(map(len, self.texts)) * _S_PER_LETTER + _S_MORE * len(self.texts)) * 12.5)


def tasks_of(n_models: int, n_sentences: int, n_dialogues: int, temperatures: list[float]) -> list[Task]:
    """What every model is asked."""
    tasks = []
    for model in range(n_models):
        for temperature in temperatures:
            for i, text in enumerate(judged_sentences()[:n_sentences]):
                tasks.append(Task((text,), (NAMES[i % len(NAMES)],), temperature, model, "sentence"))
            for i, turns in enumerate(judged_dialogues(n_dialogues)):
                tasks.append(Task(tuple(turns), PAIRS[i % len(PAIRS)], temperature, model, "dialogue"))
    return tasks


@torch.inference_mode()
@plain_torch()
def _speak(
    rank: int, devices: list[str], args: argparse.Namespace, tasks: list[Task], clips: dict, output: Path
) -> None:
    device = torch.device(devices[rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    world = World(0, 1, device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    codec = load_codec(args.codec, device)
    codes = {name: codec.encode([torch.from_numpy(c).to(device).float() / 32768])[0].cpu() for name, c in clips.items()}
    models: dict[int, tuple] = {}
    started, spoken = time.time(), {}
    for number in range(rank, len(tasks), len(devices)):
        if time.time() - started > args.seconds:
            break
        task = tasks[number]
        if task.model not in models:
            path = args.models[task.model]
            shape = ModelShape.from_dict(json.loads((path / "config.json").read_text()))
            model = empty_model(shape, device, dtype)
            load_weights(model, path)
            models[task.model] = (model, Qwen2Tokenizer.from_pretrained(str(path)))
        model, tokenizer = models[task.model]
        tokens = model.shape.tokens
        references = tuple(codes[name][:, : tokens.n_vq].numpy().astype(np.int32) for name in task.voices)
        example = Example("", {"text": task.script}, references[0], references)
        prompt = prompt_rows(example, tokenizer, tokens, TTSD)
        drawing = Drawing(task.temperature, args.top_p, 50, 1.0, seed=number)
        found = generate(model, prompt, drawing, task.max_frames, world)
        if len(found):
            wave = codec.decode(torch.from_numpy(found))
            spoken[number] = (
                (wave.clamp(-1, 1) * 32767).round().to(torch.int16).cpu().numpy(),
                len(found) >= task.max_frames,
            )
        else:
            spoken[number] = (np.zeros(1920, np.int16), True)
    torch.save(spoken, output / f".spoken-{rank}.pt")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("codec", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--dialogues", type=int, default=12)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.6, 0.8, 1.0])
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--seconds", type=float, default=90.0, help="of speaking")
    parser.add_argument("--deaf", action="store_true", help="speak only")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    voices = Voices()
    clips = {name: reference_clip(name, voices) for name in NAMES}
    tasks = tasks_of(len(args.models), args.sentences, args.dialogues, args.temperatures)
    per_gpu = 2
    devices = [f"cuda:{k}" for k in range(torch.cuda.device_count()) for _ in range(per_gpu)] or ["cpu"]
    context = torch.multiprocessing.get_context("spawn")
    children = [
        context.Process(target=_speak, args=(k, devices, args, tasks, clips, args.output)) for k in range(len(devices))
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    spoken: dict[int, tuple[np.ndarray, bool]] = {}
    for k in range(len(devices)):
        path = args.output / f".spoken-{k}.pt"
        if path.is_file():
            spoken |= torch.load(path, weights_only=False)
            path.unlink()
    numbers = sorted(spoken)
    heard = [""] * len(numbers)
    if not args.deaf:
        try:
            heard = hear_all([spoken[n][0] for n in numbers])
        except Exception as error:  # the clips are worth keeping without
            print(f"nothing was heard: {error!r}", flush=True)
    rows = []
    print(f"{'model':28} {'T':>4} {'kind':9} {'n':>3} {'WER':>6} {'cut':>5} {'s/letter':>8}")
    for model, path in enumerate(args.models):
        for temperature in args.temperatures:
            for kind in ("sentence", "dialogue"):
                chosen = [
                    (n, h)
                    for n, h in zip(numbers, heard, strict=True)
                    if (tasks[n].model, tasks[n].temperature, tasks[n].kind) == (model, temperature, kind)
                ]
                if not chosen:
                    continue
                said = [" ".join(tasks[n].texts) for n, _ in chosen]
                rate = error_rate(said, [h for _, h in chosen])
                cut = float(np.mean([spoken[n][1] for n, _ in chosen]))
                pace = sum(len(spoken[n][0]) for n, _ in chosen) / 24_000 / sum(map(len, said))
                name = "/".join(path.parts[-2:])
                print(
                    f"{name:28} {temperature:4.1f} {kind:9} {len(chosen):3} {rate:6.3f} {cut:5.2f} {pace:8.3f}",
                    flush=True,
                )
                rows.append(
                    {"model": str(path), "temperature": temperature, "kind": kind, "n": len(chosen), "wer": rate}
                    | {"cut": cut, "seconds_per_letter": pace}
                )
    lines = [
        {"model": str(args.models[tasks[n].model]), "temperature": tasks[n].temperature, "voices": tasks[n].voices}
        | {"said": tasks[n].texts, "heard": h, "cut": spoken[n][1], "seconds": len(spoken[n][0]) / 24_000}
        for n, h in zip(numbers, heard, strict=True)
    ]
    for line in lines[:: max(1, len(lines) // 12)]:
        print(f"said  {' '.join(line['said'])}\nheard {line['heard']}")
    (args.output / "figures.json").write_text(json.dumps({"table": rows, "lines": lines}, indent=1))
    for n in numbers:
        write_wav(args.output / f"{tasks[n].model}-{tasks[n].temperature}-{tasks[n].kind}-{n}.wav", spoken[n][0])


if __name__ == "__main__":
    main()
