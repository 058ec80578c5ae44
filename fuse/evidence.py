"""Which model of the family a directory holds, by what it says itself.

    evidence                                                      says
    `training.json`, which `moss-ttsd finetune` leaves            the profile
    a template with a line `- Scene:` in its processing_*.py      ttsd
    a template without it                                         tts, voice or sound
    the directory's name; else `_name_or_path` of config.json     MOSS-TTSD, MOSS-TTS, VoiceGenerator, SoundEffect

The template is text beside the weights, so that it goes before names. Where there is no evidence, or two pieces of it
contradict each other, somebody has to say it: a checkpoint under another's prompt makes sound, but not what was asked.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from sglang_moss.request.profile import PROFILES, TTSD, Profile
from sglang_moss.request.template_file import TemplateFile, find_template, labels_of

from .configs import OWN_FIELD
from .errors import FuseError
from .json_file import JsonFile

TRAINING_REPORT = "training.json"
HOW_TO_TELL = (
    "pass --profile ttsd (MOSS-TTSD, dialogues), tts (MOSS-TTS, its v1.5 too), voice (MOSS-VoiceGenerator, voices by "
    "their description) or sound (MOSS-SoundEffect); the repository that it was downloaded from has that name, and a "
    "line `- Scene:` in its processing_*.py means ttsd"
)
# Of names in small letters without anything between them. The first that is found: all are cousins of MOSS-TTS.
_NAMES = (
    (re.compile("ttsd(?!elay)"), "ttsd"),
    (re.compile("soundeffect"), "sound"),
    (re.compile("voicegenerator"), "voice"),
    (re.compile("mosstts(?!d|local|realtime|nano)"), "tts"),
)


@dataclass(frozen=True)
class Evidence:
    """What a directory says of the model in it.

    Attributes:
        profile: which it is.
        why: the evidence, in a few words.
        template: of its own processor; None: none can be read.
    """

    profile: Profile
    why: str
    template: TemplateFile | None


def find_evidence(lm: JsonFile, asked: str | None = None, given_path: Path | None = None) -> Evidence:
    """Which model a directory holds.

    Args:
        lm: its config.json.
        asked: the profile that it is said to be; None: by evidence.
        given_path: as which the directory was named, where that is a link to it.
    Raises:
        FuseError: nobody knows, or the template is not that of the profile.
    """
    if asked is not None and asked not in PROFILES:
        raise FuseError(f"--profile {asked}: known are {', '.join(PROFILES)}")
    directory = lm.path.parent
    template = find_template(directory)
    if asked is not None:
        return _fitting(Evidence(PROFILES[asked], "as asked for", template))
    fused = lm.content.get(OWN_FIELD)
    if isinstance(fused, dict) and fused.get("profile") in PROFILES:
        return Evidence(PROFILES[fused["profile"]], f"by its {lm.path.name}", template)
    trained = _trained_profile(directory / TRAINING_REPORT)
    if trained is not None:
        return _fitting(Evidence(PROFILES[trained], f"by its {TRAINING_REPORT}", template))
    own = _named(directory.name, _snapshot_of(directory), "" if given_path is None else given_path.name)
    if template is not None and template.labels == labels_of(TTSD.template) and own in (None, TTSD.name):
        return Evidence(TTSD, f"by the template in {template.path.name}", template)
    origin = _named(str(lm.content.get("_name_or_path", "")))
    if own is None and origin is None:
        raise FuseError(f"{directory}: nothing says which model of the family this is: {HOW_TO_TELL}")
    if None not in (own, origin) and own != origin:
        raise FuseError(
            f"{directory}: its name says {own} and `_name_or_path` in {lm.path.name} says {origin}: {HOW_TO_TELL}"
        )
    why = "by `_name_or_path` in its config.json" if own is None else "by its name"
    return _fitting(Evidence(PROFILES[own or origin or ""], why, template))


def _fitting(evidence: Evidence) -> Evidence:
    """Evidence whose template, if it can be read, is that of its profile."""
    template, profile = evidence.template, evidence.profile
    if template is None or template.labels == labels_of(profile.template):
        return evidence
    raise FuseError(
        f"{template.path.parent}: it is {profile.name} {evidence.why}, but {template.difference(profile.template)}: "
        "its prompts would be wrong; name its own profile with --profile, or take the processor of these weights"
    )


def _named(*names: str) -> str | None:
    """The profile that the first of some names tells that tells any."""
    for name in names:
        plain = re.sub("[^a-z0-9]", "", name.lower())
        for pattern, profile in _NAMES:
            if pattern.search(plain):
                return profile
    return None


def _snapshot_of(directory: Path) -> str:
    """The repository's name where a directory lies in the cache of downloads, REPOSITORY/snapshots/REVISION."""
    return directory.parent.parent.name if directory.parent.name == "snapshots" else ""


def _trained_profile(report: Path) -> str | None:
    """What a run of ours has left word of."""
    try:
        profile = json.loads(report.read_text(encoding="utf-8")).get("profile")
    except (OSError, ValueError, AttributeError):
        return None
    return profile if profile in PROFILES else None
