"""The official `openai` client, whole and streaming: `python examples/openai_speech.py [VOICE]`.

Writes speech.mp3 and speech.pcm into the current folder. VOICE is the name of a stored voice. MOSS_URL is the server
(http://127.0.0.1:30000), MOSS_API_KEY its key, if it has one.
"""

import os
import sys
import time
from pathlib import Path

from openai import OpenAI, OpenAIError

SCRIPT = "[S1] Did you hear that? [S2] No. What was it?"
EXTRA = {"seed": 8, "max_seconds": 20}  # fields of this server; `voices={"S2": "bob"}` gives the others theirs


def main(voice: str = "default") -> None:
    base_url = os.environ.get("MOSS_URL", "http://127.0.0.1:30000") + "/v1"
    client = OpenAI(base_url=base_url, api_key=os.environ.get("MOSS_API_KEY", "none"))

    answer = client.audio.speech.create(
        model="moss-ttsd", voice=voice, input=SCRIPT, response_format="mp3", extra_body=EXTRA
    )
    Path("speech.mp3").write_bytes(answer.read())

    started = time.monotonic()
    with (
        client.audio.speech.with_streaming_response.create(
            model="moss-ttsd", voice=voice, input=SCRIPT, response_format="pcm", extra_body=EXTRA
        ) as stream,
        Path("speech.pcm").open("wb") as file,
    ):
        for i, pcm in enumerate(stream.iter_bytes()):
            if i == 0:
                print(f"first audio after {1000 * (time.monotonic() - started):.0f} ms")
            file.write(pcm)  # 16-bit mono samples, 24,000 a second


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OpenAIError as error:
        sys.exit(f"error: {error} (is the server running? MOSS_URL names it)")
