"""Speech that is written while it is made, with the project's client: `python examples/stream.py`.

Writes stream.wav, or the file that is named; the script may follow: `python examples/stream.py out.wav "[S1] ..."`.
MOSS_URL is the server (http://127.0.0.1:30000), MOSS_API_KEY its key, if it has one.
"""

import os
import sys
import time
import wave
from contextlib import ExitStack

from sglang_moss.clients import ClientError, MossClient

SCRIPT = "[S1] Did you hear that? [S2] No. What was it?"


def main(output: str = "stream.wav", script: str = SCRIPT) -> None:
    started = time.monotonic()
    seconds = 0.0
    with (
        MossClient(os.environ.get("MOSS_URL", "http://127.0.0.1:30000"), os.environ.get("MOSS_API_KEY")) as client,
        ExitStack() as files,
    ):
        file = None
        for chunk in client.stream(script, max_seconds=20, seed=8):
            if not chunk.pcm:
                continue
            if file is None:  # opened this late, so that a server that is away costs no file that is there
                print(f"first audio after {1000 * (time.monotonic() - started):.0f} ms")
                file = files.enter_context(wave.open(output, "wb"))
                file.setparams((1, 2, chunk.sample_rate, 0, "NONE", ""))
            file.writeframes(chunk.pcm)  # or give it to whatever plays 16-bit mono samples
            seconds += chunk.seconds
    print(f"{seconds:.2f} s of audio in {time.monotonic() - started:.2f} s: {output}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ClientError as error:
        sys.exit(f"error: {error}")
