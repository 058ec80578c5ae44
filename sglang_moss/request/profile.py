"""Models of the family, a profile each: what their prompt is made of, what they take, and how they are drawn from.

All of them have one architecture and one codec. What differs is the user turn that the weights have learnt, so a server
that took one for another would speak nonsense without an error. `fuse` finds the profile of a checkpoint
(`fuse.evidence`) and writes its name into the fused `config.json`. A new model is one more entry here.

    profile  model               must have           may have                                     references
    ttsd     MOSS-TTSD           text                instruction, ambient_sound                   5, continued
    tts      MOSS-TTS            text                all fields                                   5, cloned
    voice    MOSS-VoiceGenerator text, instruction                                                none
    sound    MOSS-SoundEffect    ambient_sound       tokens, text                                 none

Source: model cards of the family (fields, audio sampling); MOSS-TTS processor (template, normaliser) and `generate`
(the text channel's own sampling); the served path of MOSS-TTSD for `ttsd`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Any, TypeAlias

from sglang_moss.errors import BadSetting
from sglang_moss.request import template
from sglang_moss.request.robust_text import robust_text
from sglang_moss.request.template import FIELDS, FieldValue, Template
from sglang_moss.request.text import MAX_SPEAKERS, normalize_text
from sglang_moss.request.values import number, repetition_penalty, temperature, top_k

Fields: TypeAlias = tuple[str, ...]

SAMPLING_NAMES = ("temperature", "top_p", "top_k", "repetition_penalty")  # of the defaults that a checkpoint may bring

# The family's directives: those of its served path, in its order, and the one that has no place there.
_FAMILY_DIRECTIVES: Fields = ("tokens", "instruction", "ambient_sound", "language")


@dataclass(frozen=True)
class ChannelSampling:
    """How text ids, or codes, are drawn."""

    temperature: float = 1.1  # 0: greedy
    top_p: float = 0.9  # (0, 1]
    top_k: int = 50  # -1: off

    def changed_by(self, params: Mapping[str, Any], prefix: str = "") -> "ChannelSampling":
        """With those settings that are given.

        Args:
            prefix: of their names in `params`.
        Raises:
            BadSetting: one of the wrong type or out of range.
        """
        return ChannelSampling(
            temperature=temperature(params, f"{prefix}temperature", self.temperature),
            top_p=number(params, f"{prefix}top_p", self.top_p, low=0.0, high=1.0, low_open=True),
            top_k=top_k(params, f"{prefix}top_k", self.top_k),
        )


OWN_DEFAULTS = ("sampling", "split_seconds")  # what a checkpoint may bring of its own
LEAST_PART_SECONDS = 5.0  # of a script


@dataclass(frozen=True)
class Profile:
    """One model of the family.

    Attributes:
        name: in `config.json` and on the command line.
        model: what its makers call it; for sentences.
        served_as: its name for clients, unless the server is given another.
        template: of the user turn.
        required: fields that a request must have.
        optional: fields that it may have.
        directives: fields that may stand in front of the text of `/generate`, behind `${normalize_text}`, in order.
        max_references: clips that a request may send. 0: there is no speaker but the model's own, and speaker tags are
            refused as well.
        mode: of a request with references that names none, see `prompt.MODES`.
        normalize: what `${normalize_text}` does to a text.
        normalized: the fields that it does so to.
        audio: defaults of the codes' draw.
        repetition_penalty: its default.
        text: defaults of the text channel's draw; None: as the codes are drawn.
        example: fields of a request that any such server can answer.
        split_seconds: a longer script is spoken in parts of about so much; None: as much as the context holds.
    """

    name: str
    model: str
    served_as: str
    template: Template
    required: Fields
    optional: Fields
    directives: Fields
    max_references: int
    mode: str
    normalize: Callable[[str], str]
    normalized: Fields
    audio: ChannelSampling
    repetition_penalty: float
    text: ChannelSampling | None
    example: Mapping[str, FieldValue]
    split_seconds: float | None = None

    @property
    def fields(self) -> Fields:
        """All fields that a request may have, in the template's order."""
        return tuple(name for name in FIELDS if name in self.required + self.optional)

    @property
    def is_ttsd(self) -> bool:
        """Whether it is MOSS-TTSD, with whichever defaults: what its served path does is done for it alone."""
        return self.name == TTSD.name

    @property
    def is_dialogue(self) -> bool:
        """Whether a script without a tag is the first speaker's, as in a dialogue."""
        return self.template.lists_silent_speakers

    def with_defaults(self, own: Mapping[str, Any]) -> "Profile":
        """The same model with those of `OWN_DEFAULTS` that a checkpoint brings in its `config.json`.

        Raises:
            BadSetting: one that no request might have.
        """
        profile = self.with_sampling(own["sampling"]) if "sampling" in own else self
        if "split_seconds" not in own:
            return profile
        seconds = own["split_seconds"]
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not LEAST_PART_SECONDS <= seconds < inf:
            raise BadSetting(f"split_seconds must be a number of at least {LEAST_PART_SECONDS:g}, got {seconds!r:.64}")
        return replace(profile, split_seconds=float(seconds))

    def with_sampling(self, sampling: Any) -> "Profile":
        """The same model with the defaults of a checkpoint's own, `sampling` in its `config.json`.

        Args:
            sampling: some of `SAMPLING_NAMES`, as `/generate` takes them. They are those of the text channel too where
                that follows the codes.
        Raises:
            BadSetting: no such setting, or none that a request might have.
        """
        if not isinstance(sampling, Mapping):
            raise BadSetting(f"sampling must be an object, got {type(sampling).__name__}")
        if unknown := sorted(map(str, sampling.keys() - set(SAMPLING_NAMES))):
            raise BadSetting(f"sampling has no {unknown[0]!r:.64}; known are {', '.join(SAMPLING_NAMES)}")
        return replace(
            self,
            audio=self.audio.changed_by(sampling),
            repetition_penalty=repetition_penalty(sampling, self.repetition_penalty),
        )

    def check_fields(self, fields: Mapping[str, FieldValue]) -> None:
        """Refuse fields that this model does not know, and a request without one that it needs.

        Args:
            fields: by name, see `template.FIELDS`; None: not there.
        Raises:
            BadSetting: the sentence names the field, and the models that take it.
        """
        for name, value in fields.items():
            if value is not None and name not in self.fields:
                raise BadSetting(self.refusal(name), "field_not_taken")
        for name in self.required:
            if fields.get(name) is None and name != "text":  # a text is missed where it is read
                raise BadSetting(self.missing(name), "field_missing")

    def refusal(self, name: str, *, field: str | None = None) -> str:
        """The sentence for a field, by `template.FIELDS` or "references", that this model has no use for.

        Args:
            field: what the client calls it.
        """
        takers = [other.model for other in PROFILES.values() if other.takes(name)]
        has_others = " or ".join(takers)
        return f"{field or name}: {self.model} takes none; leave it out, or ask {has_others}, which does"

    def missing(self, name: str, *, field: str | None = None) -> str:
        """The sentence for a field that this model needs and does not get."""
        how = f"send it as ${{{name}:...}} or in custom_params" if field is None else "send it"
        return f"{field or name}: {self.model} works from it, and it is not there; {how}"

    def takes(self, name: str) -> bool:
        """Whether requests may have a field, or "references"."""
        return self.max_references > 0 if name == "references" else name in self.fields


TTSD = Profile(
    name="ttsd",
    model="MOSS-TTSD",
    served_as="moss-ttsd",
    template=template.TTSD,
    required=("text",),
    optional=("instruction", "ambient_sound"),
    directives=("instruction", "ambient_sound"),
    max_references=MAX_SPEAKERS,
    mode="voice_clone_and_continuation",
    normalize=normalize_text,
    normalized=("text",),
    audio=ChannelSampling(temperature=1.1, top_p=0.9, top_k=50),
    repetition_penalty=1.1,
    text=None,
    example=MappingProxyType({"text": "[S1] One, two, three."}),
)
TTS = Profile(
    name="tts",
    model="MOSS-TTS",
    served_as="moss-tts",
    template=template.TTS,
    required=("text",),
    optional=tuple(name for name in FIELDS if name != "text"),
    directives=_FAMILY_DIRECTIVES,
    max_references=MAX_SPEAKERS,
    mode="voice_clone",
    normalize=robust_text,
    normalized=("text",),
    audio=ChannelSampling(temperature=1.7, top_p=0.8, top_k=25),
    repetition_penalty=1.0,
    text=ChannelSampling(temperature=1.5, top_p=1.0, top_k=50),
    example=MappingProxyType({"text": "One, two, three."}),
)
VOICE = Profile(
    name="voice",
    model="MOSS-VoiceGenerator",
    served_as="moss-voice-generator",
    template=template.TTS,
    required=("text", "instruction"),
    optional=(),
    directives=_FAMILY_DIRECTIVES,
    max_references=0,
    mode="generation",
    normalize=robust_text,
    normalized=("text", "instruction"),  # as its own processor is told to, see its model card
    audio=ChannelSampling(temperature=1.5, top_p=0.6, top_k=50),
    repetition_penalty=1.1,
    text=ChannelSampling(temperature=1.5, top_p=1.0, top_k=50),
    example=MappingProxyType({"text": "One, two, three.", "instruction": "a calm voice"}),
)
SOUND = Profile(
    name="sound",
    model="MOSS-SoundEffect",
    served_as="moss-sound-effect",
    template=template.TTS,
    required=("ambient_sound",),
    optional=("tokens", "text"),
    directives=_FAMILY_DIRECTIVES,
    max_references=0,
    mode="generation",
    normalize=robust_text,
    normalized=("text",),
    audio=ChannelSampling(temperature=1.5, top_p=0.6, top_k=50),
    repetition_penalty=1.2,
    text=ChannelSampling(temperature=1.5, top_p=1.0, top_k=50),
    example=MappingProxyType({"ambient_sound": "rain on a roof"}),
)
PROFILES = {profile.name: profile for profile in (TTSD, TTS, VOICE, SOUND)}
