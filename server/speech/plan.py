"""From the fields of a request to what is meant by them: a script in parts, voices by speaker, settings.

Only what these endpoints add is decided here; everything else is passed on to be checked where `/generate` checks it.
"""

import asyncio
import math
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sglang_moss.errors import BadSetting, BadText
from sglang_moss.request.ordinary_text import ordinary_script, ordinary_turn, ordinary_words, plain_lines, transcript_of
from sglang_moss.request.profile import LEAST_PART_SECONDS, Profile
from sglang_moss.request.prompt import MODES, Mode, choose_mode
from sglang_moss.request.script import check_script, read_script
from sglang_moss.request.settings import SEED_LIMIT, frames_allowed
from sglang_moss.request.template import FieldValue
from sglang_moss.request.text import (
    MAX_SPEAKERS,
    SPEAKER_TAG,
    check_characters,
    has_words,
    join_words,
    prefix_prompt_texts,
)
from sglang_moss.request.turns import Turn, speech_seconds, turns_of

from ..errors import BadField, NoSuchVoice
from .fields import DEFAULT_VOICE, SpeechFields
from .parts import PartLimit, plan_parts, text_tokens
from .sessions import MAX_FRAMES, Engine, Session
from .tempo import FASTEST, SLOWEST
from .turn import check_no_voice, check_taken, directives_of, is_description, settings_of, turn_fields
from .voice_store import VoiceStore

_SPEAKER = re.compile(r"\[?\s*S?\s*([1-9]\d{0,8})\s*\]?", re.IGNORECASE)
_PART_SECONDS = 45.0
_OPENING_SECONDS = 40.0  # well below the longest clip, since it is only an estimate
_TEMPLATE_ROWS = 200  # of a prompt besides script and clips, roughly
_DRAWN_SEEDS = 2**53  # for who names none; every JSON reader holds one of them
_SOUND_SECONDS = 10.0  # of a sound whose length nobody has asked for, for the guard against one without an end


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
    seed: int  # of the first part; each one after it has the next
    max_frames: int  # of all parts together
    part_frames: list[int] | None = None  # of each part: a model that does not come to an end is cut there
    speed: float = 1.0  # by which what is spoken is stretched in time
    timed: list[Turn] | None = None  # turns whose times are to be told
    has_tags: bool = True  # words are somebody's; else they are the one speaker's there is

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
        pieces = [*(clip.text or "" for clip in carried), self.parts[i]]
        text = "".join(pieces) if self.has_tags else join_words(*pieces)
        if mode.continues:
            transcripts = {k: clip.text or "" for k, clip in enumerate(self.voices, start=1)}
            untagged = join_words(*transcripts.values(), text)
            text = prefix_prompt_texts(text, transcripts) if self.has_tags else untagged
        params = {**self.settings, "custom_params": {**self.settings["custom_params"], "mode": mode.name}}
        params["sampling_seed"] = (self.seed + i) % SEED_LIMIT
        n_left = self.max_frames - n_frames
        params["max_new_tokens"] = n_left if self.part_frames is None else min(n_left, self.part_frames[i])
        clips = [clip.audio for clip in (*self.voices, *carried)]
        return Session(self.directives + text, clips or None, params)


async def read_plan(fields: SpeechFields, store: VoiceStore, engine: Engine) -> SpeechPlan:
    """What a request asks for.

    Raises:
        BadRequest: what cannot be meant, or cannot be spoken.
    """
    profile = engine.profile
    _refuse_what_others_offer(fields)
    check_taken(fields, profile)
    turn = turn_fields(fields, profile, engine.frames_per_second)
    script = "" if is_description(profile) else await asyncio.to_thread(_script_of, fields, profile)
    meant = await _meant_voices(fields, store)
    check_no_voice(meant.get(fields.voice), profile)
    voices = await _voices_of(fields, meant, store, engine)
    mode = _mode_of(fields, voices, profile)
    parts = await asyncio.to_thread(_divide, script, turn, fields, voices, engine)
    if "tokens" in turn and (mode.continues or len(parts) > 1):
        why = f"mode {mode.name} has no length of its own" if mode.continues else "it takes more than one part"
        raise BadField(f"duration_seconds: {why}; leave it out, or split and mode", "duration_seconds")
    seconds = [_estimated_seconds(part) for part in parts] if script else [fields.duration_seconds or _SOUND_SECONDS]
    part_frames = None if fields.max_seconds is not None else engine.speech_limits.frames_of(seconds, engine)
    if part_frames is not None and isinstance(tokens := turn.get("tokens"), int):
        part_frames = [frames_allowed(tokens)]
    return SpeechPlan(
        parts=parts,
        voices=voices,
        mode=mode,
        directives=directives_of(fields, turn, profile),
        settings=settings_of(fields, turn, profile),
        seed=secrets.randbelow(_DRAWN_SEEDS) if fields.seed is None else fields.seed,
        max_frames=_max_frames(fields, sum(seconds), engine),
        part_frames=part_frames,
        speed=fields.speed or 1.0,
        timed=turns_of(script) if fields.timestamps else None,
        has_tags=profile.is_dialogue or len(voices) > 1 or SPEAKER_TAG.search(script) is not None,
    )


def _refuse_what_others_offer(fields: SpeechFields) -> None:
    if fields.speed is not None and not SLOWEST <= fields.speed <= FASTEST:
        raise BadField(f"speed: from {SLOWEST:g} to {FASTEST:g}; leave it out for the model's own pace", "speed")
    if fields.timestamps and fields.stream_format != "sse":
        raise BadField("timestamps: they come with the last event; send stream_format sse too", "timestamps")
    if fields.seed is not None and not 0 <= fields.seed < SEED_LIMIT:
        raise BadField(f"seed: an integer in [0, {SEED_LIMIT - 1}]", "seed")


def _max_frames(fields: SpeechFields, estimate: float, engine: Engine) -> int:
    """Frames of the whole speech, from what was asked for and what the server allows.

    Args:
        estimate: seconds that the script takes, about.
    """
    most, speed = engine.speech_limits.max_seconds, fields.speed or 1.0
    if fields.max_seconds is None:
        if estimate > most:
            raise BadField(
                f"input: it takes about {estimate:.0f} s to speak, and this server speaks {most:g} s at most in one "
                "request; send it in pieces, or send max_seconds to hear its beginning",
                "input" if fields.dialogue is None else "dialogue",
                "script_too_long",
            )
        return engine.frames_in(most)
    max_frames = engine.frames_in(fields.max_seconds * speed) if math.isfinite(fields.max_seconds) else 0
    if not 1 <= max_frames < MAX_FRAMES:
        raise BadField("max_seconds: at least the length of one frame, 0.08 s, and finite", "max_seconds")
    if fields.max_seconds * speed > most:
        raise BadField(
            f"max_seconds: this server speaks {most / speed:g} s at most in one request",
            "max_seconds",
            "too_many_seconds",
        )
    return max_frames


def _estimated_seconds(script: str) -> float:
    return sum(speech_seconds(turn.words) for turn in turns_of(script))


def _script_of(fields: SpeechFields, profile: Profile) -> str:
    """The script; in a dialogue with a speaker tag in front: words without one are the first speaker's.

    Raises:
        BadText, BadField: the speakers cannot be told.
    """
    if (fields.input is None) == (fields.dialogue is None):
        raise BadField("send either input or dialogue", "input" if fields.dialogue is None else "dialogue")
    if fields.input is not None:
        if not profile.is_dialogue:
            return plain_lines(fields.input)
        script = ordinary_script(fields.input, "input") if fields.normalize else plain_lines(fields.input)
        return script if SPEAKER_TAG.match(script.lstrip()) else f"[S1] {script}"
    turns = []
    for i, turn in enumerate(fields.dialogue or ()):
        param = f"dialogue.{i}.text"
        with _about(param):
            words = ordinary_turn(turn.text, param, verbatim=not (fields.normalize and profile.is_dialogue))
        turns.append(str(Turn(_speaker(turn.speaker, f"dialogue.{i}.speaker"), words)))
    return "".join(turns)


def _speaker(name: int | str, param: str) -> int:
    """1 to 5, from 1 or "S1"."""
    found = _SPEAKER.fullmatch(str(name))
    if found is None or int(found[1]) > MAX_SPEAKERS:
        raise BadField(f"{param}: speakers go from S1 to S{MAX_SPEAKERS}, got {str(name)[:16]!r}", param)
    return int(found[1])


@contextmanager
def _about(param: str) -> Iterator[None]:
    """A text that is refused is that of this field."""
    try:
        yield
    except BadText as error:
        raise BadField(str(error), param, error.code) from None


def _transcript(text: str | None, speaker: int | None, param: str, fields: SpeechFields, engine: Engine) -> str | None:
    """What is said in a clip, as it stands in a prompt; None: it is not known."""
    if text is None or not text.strip():
        return None
    with _about(param):
        check_characters(text, engine.special_strings, param)
        words = transcript_of(text, speaker, param, keep_numbers=not engine.profile.is_dialogue)
    return ordinary_words(words) if fields.normalize and engine.profile.is_dialogue else words


async def _voices_of(
    fields: SpeechFields, meant: dict[str | None, str], store: VoiceStore, engine: Engine
) -> list[Clip]:
    """Clips of [S1], [S2], ...: stored ones by name and those that came along.

    Args:
        meant: from `_meant_voices`.
    """
    sources: dict[int, tuple[str, Any]] = {}

    def take(speaker: int, source: Any, param: str) -> None:
        if speaker in sources:
            raise BadField(f"[S{speaker}] has two voices, from {sources[speaker][0]} and {param}; keep one", param)
        sources[speaker] = param, source

    if (voice := meant.get(fields.voice)) is not None:
        take(1, voice, "voice")
    for speaker, name in (fields.voices or {}).items():
        if (voice := meant.get(name)) is not None:
            take(_speaker(speaker, "voices"), voice, "voices")
    if fields.ref_audio is not None:
        take(1, Clip(fields.ref_audio, _transcript(fields.ref_text, 1, "ref_text", fields, engine)), "ref_audio")
    for i, reference in enumerate(fields.references or (), start=1):
        param = f"references.{i - 1}"
        speaker = _speaker(i if reference.speaker is None else reference.speaker, param)
        take(
            speaker, Clip(reference.audio, _transcript(reference.text, speaker, f"{param}.text", fields, engine)), param
        )
    gaps = set(range(1, len(sources) + 1)) - sources.keys()
    if gaps:
        raise BadField(
            f"[S{max(sources)}] has a voice and [S{min(gaps)}] has none: speakers with a voice are numbered from S1 "
            "without a gap; renumber the speakers",
            sources[max(sources)][0],
            "voices_gap",
        )
    clips = await _clips(store, [sources[speaker] for speaker in sorted(sources)])
    params = [sources[speaker][0] for speaker in sorted(sources)]
    return [
        Clip(clip.audio, _transcript(clip.text, None, param, fields, engine)) if param in ("voice", "voices") else clip
        for clip, param in zip(clips, params, strict=True)
    ]


async def _meant_voices(fields: SpeechFields, store: VoiceStore) -> dict[str | None, str]:
    """The stored voice that each name means; those that mean none are left out."""
    names = {fields.voice, *(fields.voices or {}).values()} - {None, DEFAULT_VOICE}
    if not names:
        return {}

    def look() -> dict[str | None, str]:
        meant = {name: store.meant_by(name) for name in names if name is not None}
        return {name: voice for name, voice in meant.items() if voice != DEFAULT_VOICE}

    return await asyncio.to_thread(look)


async def _clips(store: VoiceStore, sources: Sequence[tuple[str, Clip | str]]) -> list[Clip]:
    """The clips of voices, each with the field that named it; stored ones in one visit to the disk."""
    if all(isinstance(source, Clip) for _param, source in sources):
        return [source for _param, source in sources if isinstance(source, Clip)]
    return await asyncio.to_thread(lambda: [_clip(store, *source) for source in sources])


def _clip(store: VoiceStore, param: str, source: Clip | str) -> Clip:
    if isinstance(source, Clip):
        return source
    try:
        voice, audio = store.load(source)
    except NoSuchVoice as error:
        raise BadField(str(error), param, error.code) from None  # 404 would say that this endpoint is not there
    return Clip(audio, voice.text)


def _mode_of(fields: SpeechFields, voices: Sequence[Clip], profile: Profile) -> Mode:
    """As asked for, else by what is known of the voices: what is said in a clip must be known to continue it."""
    mute = [k for k, clip in enumerate(voices, start=1) if clip.text is None]
    name = fields.mode
    if name is None and voices:
        name = "voice_clone" if mute else profile.mode
    try:
        mode = choose_mode(name, len(voices), profile)
    except BadSetting:
        raise BadField(
            f"mode: one of {', '.join(MODES)}; voices go with all of them but generation",
            "mode",
            "mode_misfit" if name in MODES else "bad_setting",
        ) from None
    if mode.continues and mute:
        raise BadField(
            f"mode {mode.name} needs the transcript of every voice, and that of [S{mute[0]}] is not known; "
            "send it as text, or take voice_clone",
            "mode",
            "transcript_missing",
        )
    return mode


def _divide(
    script: str, turn: dict[str, FieldValue], fields: SpeechFields, voices: Sequence[Clip], engine: Engine
) -> list[str]:
    """The script in one part, or where it is too long for that, or on request, in several."""
    seconds = fields.split_seconds
    if seconds is not None and (fields.split is False or not LEAST_PART_SECONDS <= seconds < math.inf):
        raise BadField(f"split_seconds: at least {LEAST_PART_SECONDS:g}, and not with split false", "split_seconds")
    field = "input" if fields.dialogue is None else "dialogue"
    with nullcontext() if field == "input" else _about(field):
        # Alone: behind a transcript there are always words, and all of it, before the first part is spoken.
        profile, directives = engine.profile, directives_of(fields, turn, engine.profile)
        read = read_script(directives + script, profile, {} if profile.is_ttsd else turn)
        check_script(read, engine.special_strings, field, profile)
    if fields.split is False or not profile.max_references:
        return [script]
    turns = turns_of(script)
    # Every clip may be as long as a clip can be, and stands in the prompt twice; a later part has two more.
    fps = engine.frames_per_second
    clip_rows = 2 * engine.limits.max_seconds * fps
    rows = engine.context_rows - _TEMPLATE_ROWS - len(voices) * clip_rows
    is_wanted = fields.split or seconds is not None
    everything = sum(speech_seconds(t.words) for t in turns), sum(text_tokens(t.words) for t in turns)
    if not is_wanted and PartLimit(profile.split_seconds or math.inf, rows, fps).holds(*everything):
        return [script]
    limit = PartLimit(seconds or profile.split_seconds or _PART_SECONDS, rows - 2 * clip_rows, fps)
    opening = PartLimit(min(limit.seconds, _OPENING_SECONDS), limit.rows, fps)
    parts = plan_parts(turns, opening, limit)
    return ["".join(map(str, part)) for part in parts if any(has_words(turn.words) for turn in part)]
