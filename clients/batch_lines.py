"""A line of a batch's JSONL file, as the reference's batch script reads it, to a request.

    {"text": "[S1] ... [S2] ...", "base_path": "/clips",
     "prompt_audio_speaker1": "a.wav", "prompt_text_speaker1": "...", "prompt_audio_speaker2": ..., up to 5}
    {"text": "[S1] ... [S2] ...", "prompt_audio": "both.wav", "prompt_text": "[S1] ... [S2] ..."}
    {"text": "[S1] ..."}

Paths are relative to `base_path`, or to where the command runs; a clip may also be a URL, if the server fetches any.
A shared `prompt_audio` holds all speakers: it can be continued, but nobody's voice can be cloned from it. Fields that
are not named here are kept for the output.

Source: MOSS-TTSD `generation_utils.prepare_sample` (1.0) and `process_jsonl_item` (0.5, for the shared clip).
"""

import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_moss.errors import BadText
from sglang_moss.request.ordinary_text import ordinary_script, ordinary_words, plain_lines, transcript_of
from sglang_moss.request.script import read_script
from sglang_moss.request.text import MAX_SPEAKERS, check_text, merge_speaker_tags, normalize_text

from .request import URL_SCHEMES, Mode, Reference

_SPEAKER_FIELD = re.compile(r"prompt_(audio|text)_speaker(\d+)")
_CLIP_FIELD = re.compile(r"prompt_audio(_speaker\d+)?")
_NORMALIZE = "${normalize_text}"


class BadLine(ValueError):  # noqa: N818 (named for what it is)
    """A line that cannot be spoken; the message says why."""


@dataclass(frozen=True)
class BatchLine:
    """What one line asks for.

    Attributes:
        fields: of the line without `base_path`, paths made absolute; the output repeats them.
        text: the script; with the transcript of a shared clip in front.
        clips: of [S1], [S2], ..., or the shared one alone; a string is a URL.
        transcripts: of the clips; empty where none is needed or known.
        mode: how the clips are used; None: the client's choice.
    """

    fields: dict[str, Any]
    text: str
    clips: list[Path | str]
    transcripts: list[str]
    mode: Mode | None

    @classmethod
    def from_json(cls, raw: bytes, mode: Mode | None = None, *, normalize: bool = False) -> "BatchLine":
        """Read a line.

        Args:
            mode: how clips of speakers are used, if that is said for all lines; `generation` leaves all clips out.
            normalize: rewrite the script the way the model was trained to read it.
        Raises:
            BadLine: no JSON object, no words to speak, or clips and transcripts that do not belong together.
        """
        try:
            return cls._from_json(raw, mode, normalize)
        except BadText as error:
            raise BadLine(str(error)) from None

    @classmethod
    def _from_json(cls, raw: bytes, mode: Mode | None, normalize: bool) -> "BatchLine":
        try:
            item = json.loads(raw.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise BadLine(
                f"expected UTF-8, got another encoding at byte {error.start}; save the file in UTF-8"
            ) from None
        except (ValueError, RecursionError) as error:
            raise BadLine(f"no JSON: {error}") from None
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            raise BadLine('expected an object with the script as a string, {"text": "[S1] ..."}')
        text = _script(item["text"], normalize)
        base_path = Path(_string(item, "base_path"))
        fields = {key: value for key, value in item.items() if key != "base_path"}
        for key, value in fields.items():
            if _CLIP_FIELD.fullmatch(key) and isinstance(value, str) and value.strip() and not _is_url(value):
                fields[key] = os.path.abspath(base_path / value.strip())  # noqa: PTH100 (`resolve` follows links)
        if mode == "generation":
            return cls(fields, _spoken(text, normalize, before=""), [], [], mode)
        if shared := _string(fields, "prompt_audio"):
            transcript = plain_lines(_string(fields, "prompt_text"))
            if not transcript:
                raise BadLine("prompt_audio needs its prompt_text, with speaker tags")
            if normalize:
                transcript = ordinary_script(transcript, "prompt_text")
            return cls(fields, _spoken(text, normalize, transcript), [_clip(shared)], [], "continuation")
        clips, transcripts = _speakers(fields, normalize)
        continues = bool(transcripts) and mode in (None, "continuation", "voice_clone_and_continuation")
        return cls(fields, _spoken(text, normalize, before="", twice=continues), clips, transcripts, mode)

    def references(self, *, same_rate: bool = False) -> list[Reference]:
        """The clips, read from their files.

        Args:
            same_rate: resample all of them to the lowest rate that one of them has.
        Raises:
            BadLine: a clip cannot be read, or is no audio; or it is a URL, which nobody here can resample.
        """
        try:
            files = [clip if isinstance(clip, str) else clip.read_bytes() for clip in self.clips]
        except (OSError, ValueError) as error:  # ValueError: a NUL in a name
            raise BadLine(str(error)) from error
        if same_rate and len(files) > 1:
            if any(isinstance(file, str) for file in files):
                raise BadLine("a clip at a URL cannot be resampled here; download it, or do not ask for one rate")
            files = _at_lowest_rate([file for file in files if isinstance(file, bytes)])
        transcripts = self.transcripts or [None] * len(files)
        return [Reference(*pair) for pair in zip(files, transcripts, strict=True)]


def _string(item: Mapping[str, Any], key: str) -> str:
    """A field without the blanks around it; "" where it is absent."""
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise BadLine(f"{key}: expected a string, got {type(value).__name__}")
    return (value or "").strip()


def _is_url(value: str) -> bool:
    return value.strip().lower().startswith(URL_SCHEMES)


def _clip(value: str) -> Path | str:
    return value if _is_url(value) else Path(value)


def _script(text: str, normalize: bool) -> str:
    """The script, with its directives, as it is sent or normalised; refused where it has no words of its own."""
    text = plain_lines(text)
    if normalize:
        text = text.removeprefix(_NORMALIZE)  # it is put there again
        script = read_script(text).text or ""
        text = text.removesuffix(script) + ordinary_script(script, "text")
    check_text(read_script(text).text, frozenset())
    return text


def _speakers(fields: Mapping[str, Any], normalize: bool) -> tuple[list[Path | str], list[str]]:
    """Clips of [S1], [S2], ... and their transcripts, which are all there or none."""
    found: dict[str, dict[int, str]] = {"audio": {}, "text": {}}
    for key in fields:
        if (match := _SPEAKER_FIELD.fullmatch(key)) and (value := _string(fields, key)):
            found[match[1]][int(match[2])] = value
    clips, transcripts = found["audio"], found["text"]
    if beyond := [k for k in clips.keys() | transcripts.keys() if not 1 <= k <= MAX_SPEAKERS]:
        raise BadLine(f"speakers go from 1 to {MAX_SPEAKERS}, got {beyond[0]}")
    if sorted(clips) != list(range(1, len(clips) + 1)):
        raise BadLine(f"speakers with a clip are numbered from 1 without a gap, got {sorted(clips)}; renumber them")
    if transcripts and transcripts.keys() != clips.keys():
        odd = min(transcripts.keys() ^ clips.keys())
        has, lacks = ("prompt_text", "prompt_audio") if odd in transcripts else ("prompt_audio", "prompt_text")
        raise BadLine(f"{has}_speaker{odd} is there, and {lacks}_speaker{odd} is not")
    words = [
        transcript_of(transcripts[k], k, f"prompt_text_speaker{k}", keep_numbers=not normalize)
        for k in sorted(transcripts)
    ]
    return [_clip(clips[k]) for k in sorted(clips)], [ordinary_words(w) for w in words] if normalize else words


def _spoken(text: str, normalize: bool, before: str, *, twice: bool = False) -> str:
    """The text of the request; as in the reference, what follows a transcript is normalised before and after."""
    if normalize and (before or twice):
        script = read_script(text).text or ""
        text = text.removesuffix(script) + normalize_text(script)
    if before:
        script = read_script(text).text or ""
        text = text.removesuffix(script) + merge_speaker_tags(before + script)
    return _NORMALIZE + text if normalize else text


def _at_lowest_rate(files: list[bytes]) -> list[bytes]:
    import soundfile  # only here, with SciPy: a client that does not resample starts faster without them

    from sglang_moss.audio.loading import ReferenceLimits, load_audio
    from sglang_moss.audio.preparation import to_mono
    from sglang_moss.errors import BadReference

    try:
        loaded = [load_audio(data, ReferenceLimits(), position) for position, data in enumerate(files)]
    except BadReference as error:
        raise BadLine(str(error)) from error
    lowest = min(rate for _samples, rate in loaded)
    if all(rate == lowest for _samples, rate in loaded):
        return files
    resampled = []
    for samples, rate in loaded:
        file = io.BytesIO()
        soundfile.write(file, to_mono(samples, rate, lowest), lowest, format="WAV", subtype="FLOAT")
        resampled.append(file.getvalue())
    return resampled
