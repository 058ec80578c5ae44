"""Audio files whose own counts are not believed: sound is decoded to its end, within bounds of ours.

    by its first bytes     demuxer
    ....ftyp               mov        .m4a, .mp4, .mov: what phones record
    1A 45 DF A3            matroska   .webm, .mka: what browsers record
    FF F0 to FF F9         aac        ADTS
    asked for by name      flac, mp3  whose length libsndfile believes, or guesses from the first frame

A demuxer is named, never guessed, and only decoders of sound are allowed, also while FFmpeg looks for what a file
holds: no picture is decoded. Tables that unfold (an MP4 counts a billion samples in 20 bytes) are added up before
FFmpeg sees the file.
"""

import io
import re
import struct
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
from av.error import FFmpegError

_DEMUXERS = {  # and the names that FFmpeg's own white list wants for each
    "mov": "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska": "matroska,webm",
    "aac": "aac",
    "flac": "flac",
    "mp3": "mp3",
}
_DECODERS = (
    "aac", "alac", "mp3float", "mp3", "opus", "libopus", "vorbis", "flac",
    "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_f32le",
)  # fmt: skip
_SCALES = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "flt": 1.0, "dbl": 1.0}
_PACKETS_PER_SECOND = 1_000  # the shortest of any codec last 2.5 ms
_MAX_BAD_PACKETS = 50
_MAX_CPU_SECONDS = 3.0
_PROBED_BYTES = 1 << 20  # in which FFmpeg looks for what the sound is; it keeps all packets of them, however small
_MAX_TABLE_ENTRIES = 250_000  # of an MP4, times its edits; a minute of AAC has 3,000
_MAX_BOXES = 20_000
_BOX_HEADER = 8
_TABLE = re.compile(b"stsz|stz2|trun|stts|ctts|elst|stsc|stco|co64|cmov")
_PCM_SAMPLES_PER_ENTRY = 1_024
_ID3_HEADER = 10
_RIFF_HEADER = 12
_CHUNK_HEADER = 8
_MAX_CHUNKS = 1_000
# Tags in whatever encoding are no error; from PyAV 19 on they never are, and the argument is gone.
_AS_TAGS_ARE: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class UnusableContainer(ValueError):  # noqa: N818 (named for what it is)
    """Why a file is not read, in one clause."""


class TooLong(UnusableContainer):
    """It holds more than it may."""


def demuxer_of(data: bytes) -> str | None:
    """FFmpeg's name for what a file is by its first bytes, where libsndfile does not know it; None: none of ours."""
    head = memoryview(data)[_behind_id3(data) :][:8].tobytes()
    if head[4:] == b"ftyp":
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    return "aac" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


def decode_to_end(data: bytes, demuxer: str, max_seconds: float, max_values: int) -> tuple[np.ndarray, int]:
    """The first track of sound in a file, whatever length the file tells.

    Args:
        data: the file.
        demuxer: FFmpeg's name for its container.
        max_seconds: more are refused as soon as they come.
        max_values: samples over all channels; the same.
    Returns:
        [L, channels] float64 samples with full scale 1, L >= 1, and the sample rate in Hz.
    Raises:
        TooLong: see above.
        UnusableContainer: no sound, none that we decode, one that changes on its way, or a file made to cost much.
    """
    if demuxer == "mov":
        _check_tables(data)
    pieces = list(sound_pieces(io.BytesIO(data), demuxer, max_seconds, max_values))
    # One by one, so that no second copy of everything is made.
    samples = np.empty((sum(len(piece) for piece, _rate in pieces), pieces[0][0].shape[1]))
    at = 0
    for piece, _rate in pieces:
        samples[at : at + len(piece)] = piece
        at += len(piece)
    return samples, pieces[0][1]


def sound_pieces(
    file: BinaryIO,
    demuxer: str,
    max_seconds: float,
    max_values: float,
    max_cpu_seconds: float = _MAX_CPU_SECONDS,
) -> Iterator[tuple[np.ndarray, int]]:
    """The same, piece by piece: [L, channels] samples with L >= 1, and the rate, which is that of all pieces.

    Unlike `decode_to_end` this looks at no tables first: a file made to cost much memory does.

    Raises:
        TooLong, UnusableContainer: see `decode_to_end`; at the first piece, or at a later one.
    """
    options = {
        "codec_whitelist": ",".join(_DECODERS),
        "format_whitelist": _DEMUXERS[demuxer],
        "max_streams": "16",
        "probesize": str(_PROBED_BYTES),
    }
    found: tuple[int, int] | None = None  # rate, channels
    n_samples = 0
    try:
        with av.open(file, format=demuxer, options=options, **_AS_TAGS_ARE) as container:
            for frame in _frames(container, max_seconds, max_cpu_seconds):
                sound = frame.sample_rate, frame.layout.nb_channels
                found = found or sound
                if sound != found:
                    raise UnusableContainer("its sample rate or its channels change on the way")
                n_samples += frame.samples
                if n_samples > max_seconds * sound[0] or n_samples * sound[1] > max_values:
                    raise TooLong
                yield _samples_of(frame), sound[0]
    except FFmpegError as error:
        raise UnusableContainer("it is damaged, or in a codec that is not known here") from error
    if not n_samples:
        raise UnusableContainer("it holds no sound")


def whole_wav(data: bytes) -> bytes:
    """A WAV whose `data` chunk goes as far as its samples do.

    Whoever writes to a pipe cannot come back to fill in the length: it says 0, 4 GiB, or what it was when the header
    was written. A length counts only where it ends at the end of the file, or at a further chunk.
    """
    if data[:4] != b"RIFF" or data[8:_RIFF_HEADER] != b"WAVE":
        return data
    at = _RIFF_HEADER
    for _ in range(_MAX_CHUNKS):
        if at + _CHUNK_HEADER > len(data):
            return data
        name, size = struct.unpack_from("<4sI", data, at)
        begin = at + _CHUNK_HEADER
        if name == b"data":
            n_rest = len(data) - begin
            lies = not _is_chunk_or_end(data, begin + size) and n_rest > 2 * size  # else it is only something behind it
            if not size or size > n_rest or lies:
                mended = bytearray(data)
                struct.pack_into("<I", mended, at + 4, n_rest)
                struct.pack_into("<I", mended, 4, len(data) - _CHUNK_HEADER)
                return bytes(mended)
            return data
        at = begin + size + size % 2
    return data


def _is_chunk_or_end(data: bytes, at: int) -> bool:
    """Whether the file, but for a byte of padding, ends at `at`, or something named goes on there."""
    rest = data[at : at + 1 + 4]
    if len(rest) <= 1:
        return True
    names = rest[:4], rest[1:]
    return any(len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name) for name in names)


def _behind_id3(data: bytes) -> int:
    """Where a file begins behind a tag of ID3."""
    if not data.startswith(b"ID3") or len(data) < _ID3_HEADER:
        return 0
    size = 0
    for byte in data[6:_ID3_HEADER]:
        size = size << 7 | byte & 0x7F
    return _ID3_HEADER + size


def _frames(container: Any, max_seconds: float, max_cpu_seconds: float) -> Iterator[Any]:
    """Decoded frames of the first track of sound; what cannot be decoded between them is passed over."""
    if not container.streams.audio:
        raise UnusableContainer("it holds no sound")
    stream = container.streams.audio[0]
    started, n_packets, n_bad = time.thread_time(), 0, 0
    for packet in container.demux(stream):
        n_packets += 1
        if n_packets > max_seconds * _PACKETS_PER_SECOND or time.thread_time() - started > max_cpu_seconds:
            raise UnusableContainer("it takes too long to decode")
        try:
            frames = packet.decode()
        except FFmpegError:
            n_bad += 1
            if n_bad > _MAX_BAD_PACKETS:
                raise
            continue
        yield from (frame for frame in frames if frame.samples)


def _samples_of(frame: Any) -> np.ndarray:
    """[L, channels] of one frame, full scale 1."""
    values = frame.to_ndarray()
    name = frame.format.name.removesuffix("p")
    if name not in _SCALES:
        raise UnusableContainer(f"its samples are {name}, which is not known here")
    by_sample = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if name == "u8":
        return by_sample / _SCALES[name] - 1.0
    return by_sample if _SCALES[name] == 1.0 else by_sample / _SCALES[name]


def _check_tables(data: bytes) -> None:
    """Refuse an MP4 whose tables would take more memory than its sound is worth.

    FFmpeg takes a table wherever it stands, so its name is looked for everywhere but among the samples themselves.
    """
    n_entries, n_edits, n_chunks, chunk_samples = 0, 1, 0, 0
    for at in _tables(data):
        name = data[at : at + 4]
        count = int.from_bytes(data[at + 8 : at + 12])  # behind version and flags
        if name == b"cmov":
            raise UnusableContainer("its tables are compressed")
        if name in (b"stsz", b"stz2"):
            n_entries += int.from_bytes(data[at + 12 : at + 16])
        elif name == b"trun":
            n_entries += count
        elif name in (b"stts", b"ctts"):
            n_entries += int(_numbers(data, at + 12, 2 * count)[::2].sum(dtype=np.uint64))
        elif name == b"elst":
            n_edits += count
        elif name == b"stsc":
            chunk_samples = max(chunk_samples, *_numbers(data, at + 12, 3 * count)[1::3].tolist(), 0)
        else:  # stco, co64
            n_chunks += count
        n_indexed = n_chunks * (1 + chunk_samples // _PCM_SAMPLES_PER_ENTRY)
        if max(n_entries * n_edits, n_indexed) > _MAX_TABLE_ENTRIES:
            raise UnusableContainer("its tables count far more than a clip has")


def _tables(data: bytes) -> Iterator[int]:
    """Where the names of an MP4's tables stand, outside of what holds the samples."""
    at = n_boxes = 0
    while at + _BOX_HEADER <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 2 * _BOX_HEADER <= len(data):
            [size] = struct.unpack_from(">Q", data, at + _BOX_HEADER)
        n_boxes += 1
        if 0 < size < _BOX_HEADER or n_boxes > _MAX_BOXES:
            raise UnusableContainer("its boxes are damaged, or too many")
        end = min(at + size, len(data)) if size else len(data)
        if name != b"mdat":
            yield from (found.start() for found in _TABLE.finditer(data, at, end))
        at = end


def _numbers(data: bytes, at: int, n: int) -> np.ndarray:
    """Up to n unsigned numbers of a table."""
    n_there = max(0, (len(data) - at) // 4)
    return np.frombuffer(data, ">u4", min(n, n_there), at) if n_there else np.empty(0, ">u4")
