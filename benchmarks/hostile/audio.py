"""Audio files that mean harm: headers that lie, little that unfolds to much, and what is no audio at all.

Each is made when it is asked for, the same every time; none is larger than a server takes by default.
"""

import functools
import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import soundfile

from ..loads.synthetic_voice import RATE, wav_of

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MOST = 0xFFFFFFFF
_LARGEST_FILE = 24_900_000  # bytes; the server's default limit is 25,000,000
_HOURS = 8 * 60  # minutes
_FOREIGN_GUID = bytes(range(16))


def chunk(name: bytes, data: bytes, announced: int | None = None) -> bytes:
    """One RIFF chunk, of a length that may be a lie."""
    padding = b"\0" * (len(data) % 2)
    return name + struct.pack("<I", len(data) if announced is None else announced) + data + padding


def fmt(
    tag: int = _PCM, channels: int = 1, rate: int = RATE, align: int = 2, bits: int = 16, more: bytes = b""
) -> bytes:
    """A WAV's `fmt ` chunk."""
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * align & _MOST, align, bits) + more)


def wav(*chunks: bytes, riff: bytes = b"RIFF", announced: int | None = None) -> bytes:
    """A WAV of these chunks, of a length that may be a lie."""
    body = b"WAVE" + b"".join(chunks)
    return riff + struct.pack("<I", len(body) if announced is None else announced) + body


def written(container: str, subtype: str | None = None, n_samples: int = RATE, rate: int = RATE) -> bytes:
    """A valid file with a tone."""
    tone = 0.3 * np.sin(np.arange(n_samples) / 17)
    file = io.BytesIO()
    soundfile.write(file, tone, rate, format=container, subtype=subtype)
    return file.getvalue()


@functools.cache
def encoded(container: str, codec: str, n_samples: int = RATE, rate: int = RATE, title: str = "") -> bytes:
    """A valid file with a tone, by FFmpeg: what libsndfile does not write."""
    tone = (10_000 * np.sin(np.arange(n_samples) / 17)).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        out.metadata.update({"title": title} if title else {})
        stream: Any = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def mp4_that_says(table: bytes, *numbers: int) -> bytes:
    """An M4A one of whose tables begins with these numbers."""
    data = bytearray(encoded("ipod", "aac"))
    at = data.index(table) + 8
    data[at : at + 4 * len(numbers)] = struct.pack(f">{len(numbers)}I", *numbers)
    return bytes(data)


def picture() -> bytes:
    """An MP4 without sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream: Any = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@functools.cache
def silence(minutes: int, container: str, subtype: str | None = None, rate: int = 8_000) -> bytes:
    """Silence in a small file."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, format=container, subtype=subtype) as out:
        for _ in range(minutes):
            out.write(np.zeros(60 * rate, np.int16))
    return file.getvalue()


def prime_silence() -> bytes:
    """A few kilobytes of FLAC within every limit, of a length that an FFT likes least."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(5_999_993, np.int16), 100_000, format="FLAC")
    return file.getvalue()


def flac_that_announces(n_samples: int, flac: bytes) -> bytes:
    """A FLAC whose STREAMINFO counts `n_samples`, whatever follows."""
    data = bytearray(flac)
    fields = int.from_bytes(data[18:26], "big")  # the last 36 of these bits count the samples; 0: unknown
    data[18:26] = (fields >> 36 << 36 | n_samples).to_bytes(8, "big")
    return bytes(data)


def floats(*values: float, subtype: str = "FLOAT") -> bytes:
    """A WAV of floats, among them `values`."""
    samples = np.full(RATE, 0.1)
    samples[100 : 100 + len(values)] = values
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype=subtype)
    return file.getvalue()


def zipped(*files: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for i, data in enumerate(files):
            out.writestr(f"{i}.wav", data)
    return archive.getvalue()


def id3(data: bytes, announced: int | None = None) -> bytes:
    """An ID3v2 tag, of a length that may be a lie."""
    n = len(data) if announced is None else announced
    return b"ID3\x04\0\0" + bytes(n >> shift & 0x7F for shift in (21, 14, 7, 0)) + data


def ogg_that_ends_at(granule: int) -> bytes:
    """An OGG whose last page claims to end at a sample far away; its checksum is wrong then, which nobody minds."""
    data = bytearray(written("OGG", "VORBIS"))
    last = data.rindex(b"OggS")
    data[last + 6 : last + 14] = struct.pack("<q", granule)
    return bytes(data)


_SOUND = chunk(b"data", bytes(range(256)) * 100)
_GUID_PCM = struct.pack("<HHI", 22, 16, 4) + b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
_ID3_TEXT = b"TXXX" + bytes((0, 0, 0, 4)) + b"\0\0" + b"\3a\0b"
_PNG = b"\x89PNG\r\n\x1a\n" + bytes(1_000)

# Those that are no sound in any reading, or beyond the limits: each must be refused.
REFUSED: dict[str, Callable[[], bytes]] = {
    "no bytes": lambda: b"",
    "no channels": lambda: wav(fmt(channels=0), _SOUND),
    "65535 channels": lambda: wav(fmt(channels=65_535, align=65_534), _SOUND),
    "a rate of 0": lambda: wav(fmt(rate=0), _SOUND),
    "a rate of 4 GHz": lambda: wav(fmt(rate=_MOST), _SOUND),
    "no bits": lambda: wav(fmt(bits=0), _SOUND),
    "no data chunk": lambda: wav(fmt()),
    "no format chunk": lambda: wav(_SOUND),
    "a format of 2 GiB": lambda: wav(b"fmt \xff\xff\xff\x7f", _SOUND),
    "data of no bytes": lambda: wav(fmt(), chunk(b"data", b"")),
    "foreign GUID": lambda: wav(fmt(_EXTENSIBLE, more=struct.pack("<HHI", 22, 16, 4) + _FOREIGN_GUID), _SOUND),
    "unknown codec": lambda: wav(fmt(0x7777), _SOUND),
    "RF64 that counts too much": lambda: wav(
        chunk(b"ds64", struct.pack("<QQQI", 2**63, 2**63, 2**63, 0)), fmt(), _SOUND, riff=b"RF64", announced=_MOST
    ),
    "three million chunks": lambda: wav(chunk(b"junk", b"") * (_LARGEST_FILE // 8), fmt(), _SOUND),
    "8 hours in FLAC": lambda: silence(_HOURS, "FLAC"),
    "5 minutes in Vorbis": lambda: silence(5, "OGG", "VORBIS"),
    "5 minutes in Opus": lambda: silence(5, "OGG", "OPUS"),
    "5 minutes in MP3": lambda: silence(5, "MP3"),
    "FLAC that says not how long": lambda: flac_that_announces(0, silence(_HOURS, "FLAC")),
    "FLAC that counts too little": lambda: flac_that_announces(1_000, silence(_HOURS, "FLAC")),
    "an MP4 of a billion samples": lambda: mp4_that_says(b"stsz", 1, 2**30),
    "an MP4 that runs on": lambda: mp4_that_says(b"stts", 1, 2**31),
    "an MP4 of a billion edits": lambda: mp4_that_says(b"elst", 2**30),
    "an MP4 whose chunks never end": lambda: mp4_that_says(b"stsc", 1, 1, 2**31),
    "an MP4 with its tables compressed": lambda: encoded("ipod", "aac").replace(b"udta", b"cmov"),
    "an MP4 without its tables": lambda: encoded("ipod", "aac").partition(b"moov")[0],
    "an MP4 of boxes only": lambda: b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * (_LARGEST_FILE // 8),
    "a picture that moves": picture,
    "5 minutes in AAC": lambda: encoded("adts", "aac", n_samples=5 * 60 * RATE),
    "5 minutes in WebM": lambda: encoded("webm", "libopus", n_samples=5 * 60 * 8_000, rate=8_000),
    "the beginning of AAC over and over": lambda: b"\xff\xf1\x50\x80\x01\x1f\xfc" * (_LARGEST_FILE // 7),
    "the beginning of WebM": lambda: encoded("webm", "libopus", rate=48_000)[:300],
    "silence": lambda: wav_of(np.zeros(RATE)),
    "a hum of nothing": lambda: wav_of(np.full(RATE, 0.3)),
    "NaN": lambda: floats(0.0, float("nan")),
    "infinite": lambda: floats(float("-inf"), subtype="DOUBLE"),
    "a peak of 1e38": lambda: floats(1e38),
    "text": lambda: b"[S1] This is no audio." * 1_000,
    "HTML": lambda: b"<!doctype html><html><body>Not found</body></html>" * 100,
    "an image": lambda: _PNG,
    "a ZIP of a WAV": lambda: zipped(written("WAV")),
    "a ZIP that is a bomb": lambda: zipped(bytes(100_000_000)),
    "zeros": lambda: bytes(_LARGEST_FILE),
    "an ID3 tag of nothing": lambda: id3(b"", announced=2**28 - 1),
    "ID3 texts without end": lambda: id3(_ID3_TEXT * (_LARGEST_FILE // len(_ID3_TEXT))),
    "the beginning of MP3 over and over": lambda: b"\xff\xfb" * (_LARGEST_FILE // 2),
}

# Those that a lenient reader may hear: each is decoded within the limits, or refused.
DOUBTFUL: dict[str, Callable[[], bytes]] = {
    "RIFF of no bytes": lambda: wav(fmt(), _SOUND, announced=0),
    "RIFF of 4 GiB": lambda: wav(fmt(), _SOUND, announced=_MOST),
    "data of 4 GiB": lambda: wav(fmt(), chunk(b"data", bytes(9_600), announced=_MOST)),
    "data beyond the file": lambda: wav(fmt(), chunk(b"data", bytes(9_600), announced=19_200)),
    "half a sample": lambda: wav(fmt(), chunk(b"data", bytes(9_601))),
    "odd blocks": lambda: wav(fmt(align=3), _SOUND),
    "blocks of no bytes": lambda: wav(fmt(align=0), _SOUND),
    "255 bits": lambda: wav(fmt(bits=255), _SOUND),
    "7 bits": lambda: wav(fmt(bits=7), _SOUND),
    "extensible PCM": lambda: wav(fmt(_EXTENSIBLE, more=_GUID_PCM), _SOUND),
    "RF64": lambda: written("RF64"),
    "two formats": lambda: wav(fmt(), fmt(channels=2, align=4), _SOUND),
    "data twice": lambda: wav(fmt(), _SOUND, _SOUND),
    "lists in lists": lambda: wav(fmt(), chunk(b"LIST", b"INFO" + b"LIST\xff\xff\0\0INFO" * 5_000), _SOUND),
    "a list of 4 GiB": lambda: wav(fmt(), chunk(b"LIST", b"INFO", announced=_MOST), _SOUND),
    "four billion cues": lambda: wav(fmt(), chunk(b"cue ", struct.pack("<I", _MOST)), _SOUND),
    "four billion loops": lambda: wav(fmt(), chunk(b"smpl", struct.pack("<9I", *[_MOST] * 9)), _SOUND),
    "a fact that lies": lambda: wav(fmt(_FLOAT, align=4, bits=32), chunk(b"fact", struct.pack("<I", _MOST)), _SOUND),
    "denormals": lambda: floats(1e-45, -1e-45, 1e-38),
    "quiet denormals only": lambda: wav(
        fmt(_FLOAT, align=4, bits=32), chunk(b"data", np.full(RATE, 1e-45, "<f4").tobytes())
    ),
    "a WAV that is a ZIP too": lambda: written("WAV") + zipped(written("WAV")),
    "an MP3 in an ID3 tag": lambda: id3(bytes(100_000)) + written("MP3"),
    "MP3 in rubbish": lambda: (written("MP3", n_samples=3_000) + b"rubbish" * 20) * 2_000,
    "a WAV in an OGG": lambda: written("OGG", "VORBIS")[:3_000] + written("WAV"),
    "OGG that ends in a century": lambda: ogg_that_ends_at(2**55),
    "OGG that ends before it begins": lambda: ogg_that_ends_at(-(2**40)),
    "many MP3s": lambda: written("MP3", n_samples=8_000, rate=8_000) * 1_500,
    "many little OGGs": lambda: written("OGG", "VORBIS", n_samples=10) * 1_000,
    "FLAC that counts too much": lambda: flac_that_announces(2**36 - 1, written("FLAC")),
    "an M4A cut in the middle": lambda: encoded("adts", "aac")[:2_000],
    "a WebM in a WebM": lambda: encoded("webm", "libopus", rate=48_000) * 20,
    "a minute of a prime number of samples": prime_silence,
}
