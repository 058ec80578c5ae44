"""References of one request: from what the client sent to the codes that its prompt needs.

The user turn wants the codes of each clip, the opening of the assistant turn those of all clips one after the other;
all are kept by content, so that a voice that comes again costs a hash, a comparison if it comes as it came, and a look
at its file's times if it is a file that stays as it is.
"""

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.local_files import FileVersion
from sglang_moss.audio.preparation import concatenate_references, prepare_reference
from sglang_moss.audio.sources import SourcePolicy, file_version, read_source
from sglang_moss.errors import BadReference, ServerBusy
from sglang_moss.request.backlog import Backlog
from sglang_moss.request.codec_client import Cached, CodeCache
from sglang_moss.request.codec_pool import CodecPool
from sglang_moss.request.known_contents import KnownContents
from sglang_moss.request.prompt import Mode
from sglang_moss.request.record import current_record

_LOADERS = 2  # threads that decode and resample clips
_SHORT_CLIPS = 1000  # that are remembered
_CONTENT_BYTES = 1 << 26  # of clips as they came, that are remembered: a hundred of ten seconds
_FILES = 10_000  # whose digests are remembered
_SHORT_BYTES = 1_000_000  # a digest of less takes no longer than another thread does to begin


@dataclass(frozen=True)
class ReferenceCodes:
    """Codes of a request's references, [T, n_vq] int32 each."""

    clips: list[np.ndarray]  # where the mode clones, else empty
    prompt_audio: np.ndarray | None  # where the mode continues
    all_cached: bool

    @property
    def n_frames(self) -> int:
        """Of all of them, as the prompt has them."""
        return sum(map(len, self.clips)) + (0 if self.prompt_audio is None else len(self.prompt_audio))


class ReferenceEncoder:
    """Reads, prepares and encodes references. Belongs to one event loop."""

    def __init__(
        self,
        codec: CodecPool,
        sample_rate: int,
        frame_samples: int,
        limits: ReferenceLimits,
        policy: SourcePolicy,
        cache_bytes: int,
    ) -> None:
        self._codec = codec
        self._sample_rate = sample_rate
        self._frame_samples = frame_samples
        self._limits = limits
        self._policy = policy
        self._cache = CodeCache(cache_bytes)
        self._contents = KnownContents[bytes](min(_CONTENT_BYTES, cache_bytes))  # digests
        self._files: OrderedDict[FileVersion, bytes] = OrderedDict()  # digests
        self._backlog = Backlog()
        self._short: deque[bytes] = deque(maxlen=_SHORT_CLIPS)  # digests of clips without a whole frame, as they came
        self._loaders = ThreadPoolExecutor(_LOADERS, thread_name_prefix="moss-reference")

    async def encode(self, sources: Sequence[object], mode: Mode, strict: bool = False) -> ReferenceCodes:
        """The codes that a prompt in `mode` needs of `sources`, speaker 1 first.

        Args:
            strict: whether a clip without a whole frame is refused; the reference gives it no codes.
        Raises:
            BadReference: a source that cannot be read or used; the message names its position.
            ServerBusy: the codec has too much to do.
            MossError: the codec failed.
        """
        try:
            return await self._encode(sources, mode, strict)
        except ServerBusy as busy:
            current_record().retry_after = busy.retry_after
            raise

    async def _encode(self, sources: Sequence[object], mode: Mode, strict: bool) -> ReferenceCodes:
        known = [self._contents.value_of(source) for source in sources]
        finding = (self._clip(s, known[i], i, strict) for i, s in enumerate(sources))
        clips = [await clip for clip in finding] if all(known) else await asyncio.gather(*finding)
        for clip in clips:
            if strict and clip.digest in self._short:
                raise BadReference.at(
                    clip.position, "the clip is shorter than one frame; send more of it", "clip_too_short"
                )
        wanted: list[list[_Clip]] = [[clip] for clip in clips] if mode.clones else []
        if mode.continues:
            wanted.append(clips)
        if not all(_key(group) in self._cache for group in wanted):
            current_record().preparation.end()
            if not all(self._cache.is_coming(_key(group)) for group in wanted):
                self._backlog.check()  # before the clips are decoded for nothing
            # A clip that is no audio fails its own request, not another one that shares an encoding with it.
            lengths = [len(waveform) for waveform in await asyncio.gather(*(clip.waveform() for clip in clips))]
            new = {_key(group): group for group in wanted if not self._cache.is_coming(_key(group))}
            if len(clips) > 1 and _key(clips) in new:
                new.pop(_key(clips[:1]), None)  # one encoding serves both, see `_codes`
            n_samples = sum(lengths[clip.position] for group in new.values() for clip in group)
            with self._backlog.waiting(n_samples / self._sample_rate):
                found = await asyncio.gather(
                    *(self._codes(group, clips if mode.continues else group) for group in wanted)
                )
        else:
            found = [await self._codes(group, group) for group in wanted]
        current_record().take_references([cached.was_cached for cached in found])
        return ReferenceCodes(
            clips=[cached.codes for cached in found[: len(clips)]] if mode.clones else [],
            prompt_audio=found[-1].codes if mode.continues else None,
            all_cached=bool(found) and all(cached.was_cached for cached in found),
        )

    async def _clip(self, source: object, known: bytes | None, position: int, strict: bool) -> "_Clip":
        """
        Args:
            known: digest of what it stands for, if it is not to be read for that.
        """
        data, digest = None, known or self._digest_of_file(await file_version(source, self._policy))
        if digest is None:
            current_record().preparation.end()  # it may have to be fetched
            data, is_content, version = await read_source(source, self._policy, position)
            digest = await _digest(data)
            if is_content and isinstance(source, str | bytes):
                self._contents.remember(source, digest)
            elif version is not None:
                self._remember_file(version, digest)

        async def prepare() -> np.ndarray:
            content = data
            if content is None:  # whose codes were forgotten before what it looks like is read again
                content = (await read_source(source, self._policy, position)).data
                if await _digest(content) != digest:
                    raise BadReference.at(position, "the file has changed just now; send the request again")
            return await self._prepare(strict, digest, content, position)

        return _Clip(digest, position, prepare)

    def _digest_of_file(self, version: FileVersion | None) -> bytes | None:
        if version is None or version not in self._files:
            return None
        self._files.move_to_end(version)
        return self._files[version]

    def _remember_file(self, version: FileVersion, digest: bytes) -> None:
        self._files[version] = digest
        if len(self._files) > _FILES:
            self._files.popitem(last=False)

    async def _codes(self, group: Sequence["_Clip"], longest: Sequence["_Clip"]) -> Cached:
        """Codes of the concatenation of `group`; `longest` are clips whose codes the request needs too.

        The codec is causal: the whole frames of a clip have the same codes whatever follows, so where `longest` begins
        with `group`, one encoding serves both.
        """
        begins_longest = len(longest) > len(group) and longest[0] is group[0]

        async def encode() -> np.ndarray:
            waveforms = await asyncio.gather(*(clip.waveform() for clip in group))
            if begins_longest:
                cached = await self._codes(longest, longest)
                return cached.codes[: sum(map(len, waveforms)) // self._frame_samples].copy()
            waveform = waveforms[0]
            if len(waveforms) > 1:
                waveform = await asyncio.to_thread(concatenate_references, waveforms)
            with self._backlog.encoding(len(waveform) / self._sample_rate):
                [codes] = await self._codec.encode([waveform])
            return codes

        return await self._cache.get(_key(group), encode)

    async def _prepare(self, strict: bool, digest: bytes, data: bytes, position: int) -> np.ndarray:
        loop = asyncio.get_running_loop()
        least_samples = self._frame_samples if strict else 1
        waveform = await loop.run_in_executor(
            self._loaders, prepare_reference, data, self._sample_rate, self._limits, position, least_samples
        )
        if len(waveform) < self._frame_samples:
            self._short.append(digest)
        return waveform


async def _digest(data: bytes) -> bytes:
    if len(data) <= _SHORT_BYTES:
        return hashlib.sha256(data).digest()
    return (await asyncio.to_thread(hashlib.sha256, data)).digest()


def _key(clips: Sequence["_Clip"]) -> bytes:
    return b"".join(clip.digest for clip in clips)


class _Clip:
    """One reference of one request; decoded at most once, and only if its codes are not known yet."""

    def __init__(self, digest: bytes, position: int, prepare: Callable[[], Awaitable[np.ndarray]]) -> None:
        self.digest = digest
        self.position = position
        self._prepare = prepare
        self._waveform: asyncio.Future[np.ndarray] | None = None

    async def waveform(self) -> np.ndarray:
        if self._waveform is None:
            self._waveform = asyncio.ensure_future(self._prepare())
        return await self._waveform
