"""Scenes of up to five speakers, spoken at the same time: `python examples/many_speakers.py CLIPS`.

CLIPS is a folder of clips, each NAME.wav with what is said in it in NAME.txt. Every name is stored as a voice if it is
not there yet; the first five, in alphabetical order, are [S1] to [S5]. Writes scene-1.wav and so on into the current
folder. MOSS_URL is the server (http://127.0.0.1:30000), MOSS_API_KEY its key, if it has one.
"""

import asyncio
import os
import sys
import wave
from pathlib import Path

from sglang_moss.clients import AsyncMossClient, ClientError

SCENES = [
    "[S1] Who is there? [S2] Only me. [S3] And me. [S4] We brought soup. [S5] It is still warm.",
    "[S5] The train is late again. [S1] Then let us walk.",
    "[S3] Ready? [S4] Ready. [S2] Not yet! [S1] We start without you.",
]


async def store(client: AsyncMossClient, folder: Path) -> dict[int, str]:
    """Stored voices by speaker: 1 for [S1]."""
    known = {voice.name for voice in await client.voices()}
    clips = sorted(folder.glob("*.wav"))[:5]
    for clip in clips:
        if clip.stem not in known:
            await client.add_voice(clip.stem, clip, clip.with_suffix(".txt").read_text(encoding="utf-8").strip())
    return {speaker: clip.stem for speaker, clip in enumerate(clips, start=1)}


async def speak(client: AsyncMossClient, script: str, voices: dict[int, str], output: Path) -> None:
    with wave.open(str(output), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        async for chunk in client.speech(script, voices, max_seconds=20, seed=8):
            file.writeframes(chunk.pcm)
        print(f"{output}: {file.tell() / 24_000:.2f} s")


async def main(folder: str) -> None:
    url, key = os.environ.get("MOSS_URL", "http://127.0.0.1:30000"), os.environ.get("MOSS_API_KEY")
    async with AsyncMossClient(url, key) as client:
        voices = await store(client, Path(folder))
        scenes = (speak(client, scene, voices, Path(f"scene-{i}.wav")) for i, scene in enumerate(SCENES, start=1))
        await asyncio.gather(*scenes)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not any(Path(sys.argv[1]).glob("*.wav")):
        sys.exit("name a folder of clips, NAME.wav with what is said in it in NAME.txt: many_speakers.py CLIPS")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except ClientError as error:
        sys.exit(f"error: {error}")
