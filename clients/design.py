"""A voice from its description: one server makes a clip, another keeps it, and speaks dialogues with it.

description, text -> MOSS-VoiceGenerator -> clip -> (somebody listens) -> voice of MOSS-TTSD, with `text` as transcript
"""

import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field

import numpy as np

from sglang_moss.audio.wav import wav_bytes

from .async_client import AsyncMossClient
from .client import MossClient
from .errors import ServerRefused
from .profile import ServerProfile
from .speech import SpeechChunk
from .speech_request import SpeechSettings
from .voices import Voice

_HAN = re.compile("[\u3400-\u9fff]")
_SEED_LIMIT = 2**63
_NOT_FOUND = 404
# What a designed voice says unless it is told to say something else: enough of it to know a voice by.
SAMPLE_TEXT = "Good morning. The kettle is on, the paper is late, and somebody has left the gate open again. Shall we?"
SAMPLE_TEXT_CHINESE = "早上好。水已经烧开了，报纸还没有到，不知道是谁又忘了关院门。我们开始吧？"


class NoDesign(ValueError):  # noqa: N818 (named for what it is)
    """Nobody knows what is said in what came, if anything: another seed makes another voice."""


@dataclass(frozen=True)
class Design:
    """A clip of a voice that was made up.

    Attributes:
        wav: a WAV file, 16-bit mono.
        text: what is said in it.
        seconds: its length.
        seed: makes it again.
    """

    wav: bytes = field(repr=False)
    text: str
    seconds: float
    seed: int


def sample_text(description: str) -> str:
    """What a voice says that has no text of its own, in the description's language as far as it is known."""
    return SAMPLE_TEXT_CHINESE if _HAN.search(description) else SAMPLE_TEXT


def makes_voices(model: ServerProfile) -> bool:
    """Whether a server's model makes a voice from its description."""
    return "instruction" in model.required


def check_servers(designing: MossClient, keeping: MossClient, name: str, *, replace: bool) -> None:
    """Refuse before the work what would fail after it.

    Args:
        designing: makes clips.
        keeping: keeps them.
        name: of the voice.
        replace: whether a voice of that name may be there.
    Raises:
        ValueError: a server of another model, or the name is taken.
        ClientError: a server cannot be asked.
    """
    model = designing.profile()
    if not makes_voices(model):
        raise ValueError(
            f"--voice-url is a server of {model.model}, which makes no voice from a description; name one of "
            "MOSS-VoiceGenerator"
        )
    model = keeping.profile()
    if not model.max_references:
        raise ValueError(
            f"--store-url is a server of {model.model}, which speaks with no stored voice; name one of MOSS-TTSD"
        )
    if replace:
        return
    try:
        keeping.voice(name)
    except ServerRefused as error:
        if error.status != _NOT_FOUND:
            raise
    else:
        raise ValueError(f"a voice {name} is kept there already; pass --replace, or take another name")


def design(
    client: MossClient,
    description: str,
    text: str,
    settings: SpeechSettings,
    on_chunk: Callable[[SpeechChunk], None] = lambda _chunk: None,
) -> Design:
    """Have a voice made.

    Args:
        client: of a server of MOSS-VoiceGenerator.
        description: of the voice.
        text: that it says.
        settings: of the draw; without a seed it has a random one.
        on_chunk: is told of the sound as it comes.
    Raises:
        NoDesign: it did not come to an end.
        ClientError: the server cannot be asked, or refuses.
    """
    asked, seed = _asked(description, settings)
    chunks: list[SpeechChunk] = []
    with closing(client.speech(text, None, **asked)) as speech:
        for chunk in speech:
            chunks.append(chunk)
            on_chunk(chunk)
    return _design_of(chunks, text, seed)


async def async_design(client: AsyncMossClient, description: str, text: str, settings: SpeechSettings) -> Design:
    """`design` for asyncio: cancelling it ends the work of the server."""
    asked, seed = _asked(description, settings)
    async with aclosing(client.speech(text, None, **asked)) as speech:
        chunks = [chunk async for chunk in speech]
    return _design_of(chunks, text, seed)


def _asked(description: str, settings: SpeechSettings) -> tuple[SpeechSettings, int]:
    seed = settings.get("seed")
    seed = secrets.randbelow(_SEED_LIMIT) if seed is None else seed
    return {**settings, "instructions": description, "seed": seed}, seed


def _design_of(chunks: Sequence[SpeechChunk], text: str, seed: int) -> Design:
    if not any(chunk.pcm for chunk in chunks):
        raise NoDesign("the server made no sound; try another --seed")
    if any(chunk.finish_reason == "length" for chunk in chunks):
        raise NoDesign(f"the voice did not come to the end of its text (seed {seed}); try another --seed or --text")
    pcm = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2")
    rate = chunks[0].sample_rate
    return Design(wav_bytes(pcm, rate), text, len(pcm) / rate, seed)


def keep(client: MossClient, name: str, made: Design, *, replace: bool) -> Voice:
    """Have a voice kept, with its transcript.

    Raises:
        ClientError: the server cannot be asked, or refuses.
    """
    put = client.replace_voice if replace else client.add_voice
    return put(name, made.wav, made.text)
