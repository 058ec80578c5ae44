"""Which codec is best: `python -m small_voice.evaluate_codec CODECS BEST`, CODECS a folder with a run of each variant.

Fifty sentences that are in no training data, by the four voices in turn, through each codec: word error rates of the
recogniser, and log-mel distances. The best is copied to BEST: fewest word errors, and among those within a point of it
the nearest spectrum.
"""

import argparse
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import torch

from sglang_moss.codec.kernels import plain_torch

from .codec_config import WEIGHTS, load_codec
from .codec_losses import SpectralLoss
from .hearing import error_rate, hear_all
from .held_out import judged_sentences
from .voices import NAMES, RATE, Voices

_NEAR = 0.011  # word error rates that are no different


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("codecs", type=Path)
    parser.add_argument("best", type=Path)
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--deaf", action="store_true", help="choose by spectra alone")
    parser.add_argument("--wavs", type=Path, help="write some clips there")
    args = parser.parse_args()
    texts = judged_sentences()[: args.sentences]
    voices = Voices()
    said = [voices.speak(NAMES[i % len(NAMES)], text, i) for i, text in enumerate(texts)]
    found: dict[Path, dict] = {}
    heard: dict[str, float] = {}
    clips = list(said)
    paths = [path for path in sorted(args.codecs.glob("*/*")) if (path / WEIGHTS).is_file() and path.name[0] != "."]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for path in paths:
        made, mel = reconstruct(path, said, device)
        found[path] = {"mel": mel}
        clips += made
    if not args.deaf:
        words = hear_all(clips)
        rates = [error_rate(texts, words[k * len(texts) : (k + 1) * len(texts)]) for k in range(1 + len(paths))]
        heard = {"source": rates[0]}
        for path, rate in zip(paths, rates[1:], strict=True):
            found[path]["wer"] = rate
    least = min((row.get("wer", 0.0) for row in found.values()), default=0.0)
    best = min(found, key=lambda p: (found[p].get("wer", 0.0) > least + _NEAR, found[p]["mel"]))
    print(f"{'codec':24} {'WER':>6} {'log-mel':>8}")
    print(f"{'source':24} {heard.get('source', float('nan')):6.3f}")
    for path, row in found.items():
        name = f"{path.parent.name}/{path.name}"
        print(f"{name:24} {row.get('wer', float('nan')):6.3f} {row['mel']:8.4f}{'  <- best' if path == best else ''}")
    shutil.rmtree(args.best, ignore_errors=True)
    shutil.copytree(best, args.best)
    figures = {"chosen": str(best), "source_wer": heard.get("source"), **{str(p): row for p, row in found.items()}}
    (args.best / "choice.json").write_text(json.dumps(figures, indent=1))
    if args.wavs:
        args.wavs.mkdir(parents=True, exist_ok=True)
        at = (1 + paths.index(best)) * len(said)
        for i in range(min(8, len(said))):
            write_wav(args.wavs / f"codec-{i}-{NAMES[i % len(NAMES)]}.wav", clips[at + i])


@torch.inference_mode()
@plain_torch()
def reconstruct(path: Path, clips: list[np.ndarray], device: str) -> tuple[list[np.ndarray], float]:
    """Clips [L] int16 through a codec, and their mean log-mel distance."""
    codec = load_codec(path, device)
    spectral = SpectralLoss().to(device)
    made, distances = [], []
    for clip in clips:
        wave_in = torch.from_numpy(clip).to(device).float() / 32768
        wave_out = codec.decode(codec.encode([wave_in])[0])
        distances.append(float(spectral(wave_out[None], wave_in[None])[0]))
        made.append((wave_out.clamp(-1, 1) * 32767).round().to(torch.int16).cpu().numpy())
    return made, float(np.mean(distances))


def write_wav(path: Path, samples: np.ndarray) -> None:
    """[L] int16 at 24 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


if __name__ == "__main__":
    main()
