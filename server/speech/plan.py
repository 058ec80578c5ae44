"""From the fields of a request to what is meant by them: a script in parts, voices by speaker, settings.

Only what these endpoints add is decided here; everything else is passed on to be checked where `/generate` checks it.
"""

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sglang_moss.errors import BadSetting
from sglang_moss.request.prompt import MODES, Mode, choose_mode
from sglang_moss.request.script import check_script, read_script
from sglang_moss.request.settings import SEED_LIMIT
from sglang_moss.request.text import MAX_SPEAKERS, SPEAKER_TAG, prefix_prompt_texts

from ..errors import BadField, NoSuchVoice
from .fields import DEFAULT_VOICE, SpeechFields, VoiceName
from .parts import PartLimit, Turn, plan_parts, speech_seconds, text_tokens, turns_of
from .sessions import Engine, Session
from .voice_store import VoiceStore

_NORMALIZE = "${normalize_text}"
_SPEAKER = re.compile(r"S?([1-9]\d{0,8})")
_LEADING_TAG = re.compile(r"\s*\[S?\d+\]")
_PART_SECONDS = 45.0
_LEAST_PART_SECONDS = 5.0
_OPENING_SECONDS = 40.0  # well below the longest clip, since it is only an estimate
_TEMPLATE_ROWS = 200  # of a prompt besides script and clips, roughly


@dataclass(frozen=True)
class Clip:
    """Audio that a session goes by, and what is said in it."""

    audio: bytes | str  # as `/generate` takes it
    text: str | None  # with speaker tags where it is not one speaker's


@dataclass(frozen=True)
class SpeechPlan:
    """One speech."""

    parts: list[str]  # scripts, spoken one after the other
    voices: list[Clip]  # of [S1], [S2], ...
    mode: Mode
    directives: str
    settings: dict[str, Any]  # `sampling_params` without length and seed
    seed: int | None
    max_frames: int | None  # of all parts together

    @property
    def can_carry(self) -> int:
        """How many clips of earlier parts a later part can go by, besides the voices.

        `/generate` continues from references only, so a mode that clones without continuing has no place for them.
        """
        return MAX_SPEAKERS - len(self.voices) if self.mode.continues or not self.voices else 0

    def session(self, i: int, n_frames: int, carried: Sequence[Clip]) -> Session:
        """The session that speaks part `i` after `n_frames` frames of the parts before it.

        Args:
            carried: earlier parts that it continues, the last one last; at most `can_carry`.
        """
        mode = choose_mode("continuation", 1) if carried else self.mode
        text = "".join(clip.text or "" for clip in carried) + self.parts[i]
        if mode.continues:
            transcripts = {k: clip.text or "" for k, clip in enumerate(self.voices, start=1)}
            text = prefix_prompt_texts(text, transcripts)
        params = {**self.settings, "custom_params": {**self.settings["custom_params"], "mode": mode.name}}
        if self.seed is not None:
            params["sampling_seed"] = (self.seed + i) % SEED_LIMIT
        if self.max_frames is not None:
            params["max_new_tokens"] = self.max_frames - n_frames
        clips = [clip.audio for clip in (*self.voices, *carried)]
        return Session(self.directives + text, clips or None, params)


async def read_plan(fields: SpeechFields, store: VoiceStore, engine: Engine) -> SpeechPlan:
    """What a request asks for.

    Raises:
        BadRequest: what cannot be meant, or cannot be spoken.
    """
    _refuse_what_others_offer(fields)
    script = _script_of(fields)
    voices = await _voices_of(fields, store)
    mode = _mode_of(fields, voices)
    max_frames = None
    if fields.max_seconds is not None:
        max_frames = engine.frames_in(fields.max_seconds) if math.isfinite(fields.max_seconds) else 0
        if not 1 <= max_frames < 2**31:
            raise BadField("max_seconds: at least the length of one frame, 0.08 s, and finite", "max_seconds")
    return SpeechPlan(
        parts=await asyncio.to_thread(_divide, script, fields, voices, engine),
        voices=voices,
        mode=mode,
        directives=_directives_of(fields),
        settings=_settings_of(fields),
        seed=fields.seed,
        max_frames=max_frames,
    )


def _refuse_what_others_offer(fields: SpeechFields) -> None:
    if fields.speed is not None and fields.speed != 1.0:
        raise BadField("speed: only 1.0 here; this model chooses its own pace, leave it out", "speed")
    if fields.seed is not None and not 0 <= fields.seed < SEED_LIMIT:
        raise BadField(f"seed: an integer in [0, {SEED_LIMIT - 1}]", "seed")


def _script_of(fields: SpeechFields) -> str:
    """The script with a speaker tag in front: words without one are the first speaker's."""
    if (fields.input is None) == (fields.dialogue is None):
        raise BadField("send either input or dialogue", "input" if fields.dialogue is None else "dialogue")
    if fields.input is not None:
        tag = _LEADING_TAG if fields.normalize else SPEAKER_TAG
        return fields.input if tag.match(fields.input.lstrip()) else f"[S1] {fields.input}"
    turns = []
    for i, turn in enumerate(fields.dialogue or ()):
        if any(inner.speaker is not None for inner in turns_of(turn.text, bare_tags=fields.normalize)):
            raise BadField(
                "dialogue: a turn's text has no speaker tags; make turns of it, or send input"
                + (" (with normalize, [1] is a tag too)" if fields.normalize else ""),
                f"dialogue.{i}.text",
            )
        turns.append(str(Turn(_speaker(turn.speaker, f"dialogue.{i}.speaker"), turn.text)))
    return "".join(turns)


def _speaker(name: int | str, param: str) -> int:
    """1 to 5, from 1 or "S1"."""
    found = _SPEAKER.fullmatch(str(name))
    if found is None or int(found[1]) > MAX_SPEAKERS:
        raise BadField(f"{param}: speakers go from S1 to S{MAX_SPEAKERS}, got {str(name)[:16]!r}", param)
    return int(found[1])


async def _voices_of(fields: SpeechFields, store: VoiceStore) -> list[Clip]:
    """Clips of [S1], [S2], ...: stored ones by name and those that came along."""
    sources: dict[int, tuple[str, Any]] = {}

    def take(speaker: int, source: Any, param: str) -> None:
        if speaker in sources:
            raise BadField(f"[S{speaker}] has two voices, from {sources[speaker][0]} and {param}; keep one", param)
        sources[speaker] = param, source

    if (voice := _voice_name(fields.voice)) is not None:
        take(1, voice, "voice")
    for speaker, name in (fields.voices or {}).items():
        if (voice := _voice_name(name)) is not None:
            take(_speaker(speaker, "voices"), voice, "voices")
    for i, reference in enumerate(fields.references or (), start=1):
        param = f"references.{i - 1}"
        clip = Clip(reference.audio, (reference.text or "").strip() or None)
        take(_speaker(i if reference.speaker is None else reference.speaker, param), clip, param)
    gaps = set(range(1, len(sources) + 1)) - sources.keys()
    if gaps:
        raise BadField(
            f"[S{max(sources)}] has a voice and [S{min(gaps)}] has none: speakers with a voice are numbered from S1 "
            "without a gap; renumber the speakers",
            sources[max(sources)][0],
        )
    return [await _clip(store, *sources[speaker]) for speaker in sorted(sources)]


def _voice_name(voice: VoiceName | None) -> str | None:
    name = voice if isinstance(voice, str | None) else voice.id
    return None if name == DEFAULT_VOICE else name


async def _clip(store: VoiceStore, param: str, source: Clip | str) -> Clip:
    if isinstance(source, Clip):
        return source
    try:
        voice, audio = await asyncio.to_thread(store.load, source)
    except NoSuchVoice as error:
        raise BadField(str(error), param, error.code) from None  # 404 would say that this endpoint is not there
    return Clip(audio, voice.text)


def _mode_of(fields: SpeechFields, voices: Sequence[Clip]) -> Mode:
    """As asked for, else by what is known of the voices: what is said in a clip must be known to continue it."""
    mute = [k for k, clip in enumerate(voices, start=1) if clip.text is None]
    name = fields.mode
    if name is None and voices:
        name = "voice_clone" if mute else "voice_clone_and_continuation"
    try:
        mode = choose_mode(name, len(voices))
    except BadSetting:
        raise BadField(f"mode: one of {', '.join(MODES)}; voices go with all of them but generation", "mode") from None
    if mode.continues and mute:
        raise BadField(
            f"mode {mode.name} needs the transcript of every voice, and that of [S{mute[0]}] is not known; "
            "send it as text, or take voice_clone",
            "mode",
        )
    return mode


def _directives_of(fields: SpeechFields) -> str:
    if fields.instruction is not None and fields.instructions is not None:
        raise BadField("instruction and instructions mean the same; send one", "instruction")
    named = {
        "instruction": fields.instructions if fields.instruction is None else fields.instruction,
        "ambient_sound": fields.ambient_sound,
    }
    directives = _NORMALIZE if fields.normalize else ""
    for name, value in named.items():
        if value is None or not value.strip():
            continue
        if "}" in value:
            raise BadField(f"{name}: a brace would end it; leave }} out", name)
        directives += f"${{{name}:{' '.join(value.split())}}}"  # a directive is one line
    return directives


def _settings_of(fields: SpeechFields) -> dict[str, Any]:
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    settings = {name: getattr(fields, name) for name in names if getattr(fields, name) is not None}
    custom = {} if fields.chunk_frames is None else {"chunk_frames": fields.chunk_frames}
    return settings | {"custom_params": custom}


def _divide(script: str, fields: SpeechFields, voices: Sequence[Clip], engine: Engine) -> list[str]:
    """The script in one part, or where it is too long for that, or on request, in several."""
    seconds = fields.split_seconds
    if seconds is not None and (fields.split is False or not _LEAST_PART_SECONDS <= seconds < math.inf):
        raise BadField(f"split_seconds: at least {_LEAST_PART_SECONDS:g}, and not with split false", "split_seconds")
    turns = turns_of(script, bare_tags=fields.normalize)
    if fields.split is False or not turns:
        return [script]
    # Every clip may be as long as a clip can be, and stands in the prompt twice; a later part has two more.
    fps = engine.frames_per_second
    clip_rows = 2 * engine.limits.max_seconds * fps
    rows = engine.context_rows - _TEMPLATE_ROWS - len(voices) * clip_rows
    is_wanted = fields.split or seconds is not None
    everything = sum(speech_seconds(t.words) for t in turns), sum(text_tokens(t.words) for t in turns)
    if not is_wanted and PartLimit(math.inf, rows, fps).holds(*everything):
        return [script]
    check_script(read_script(_directives_of(fields) + script), engine.special_strings)  # all of it, before the first
    limit = PartLimit(seconds or _PART_SECONDS, rows - 2 * clip_rows, fps)
    opening = PartLimit(min(limit.seconds, _OPENING_SECONDS), limit.rows, fps)
    return ["".join(map(str, part)) for part in plan_parts(turns, opening, limit)]
