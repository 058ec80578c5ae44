"""A line about a training run: `python -m small_voice.tell OUTPUT NAME`."""

import json
import sys
from pathlib import Path


def main() -> None:
    path, name = Path(sys.argv[1]) / "log.jsonl", sys.argv[2]
    if not path.is_file():
        sys.exit(1)
    step, validated = None, None
    for text in path.read_text().splitlines():
        line = json.loads(text)
        step, validated = (line, validated) if "loss" in line else (step, line)
    if step is None:
        sys.exit(1)
    parts = [
        f"{key} {step[key]:.4g}" for key in ("loss", "text_loss", "audio_loss", "rate", "gradient_norm", "rows_per_s")
    ]
    parts.append(f"waiting {step.get('waiting_share', 0):.2f}")
    if validated is not None:
        channels = [round(x, 2) for x in validated["validation_channels"]]
        parts.append(f"validation {validated['validation_loss']:.4f} at {validated['step']}: {channels}")
    print(f"lm {name}: step {step['step']}, {', '.join(parts)}")


if __name__ == "__main__":
    main()
