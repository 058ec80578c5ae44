"""`moss-ttsd say`: a script to a file or the loudspeaker, as it is made."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..request import Reference
from ..text_file import read_text
from .grouping import grouped
from .options import MaxSeconds, ModeOption, Sampling, Server, VoiceNames, failures_in_one_line, voices_by_speaker
from .speaking import Outlet

EPILOG = """Examples:

moss-ttsd say "[S1] Did you hear that? [S2] No." -o out.wav --voice S1=alice --voice S2=bob

moss-ttsd say --file script.txt --play -o out.mp3

echo "Hello there." | moss-ttsd say - -o - | ffplay -

moss-ttsd say "rain on a tin roof" --duration 8 -o rain.wav --url http://127.0.0.1:30002
"""


@grouped
def say(
    text: Annotated[
        str | None,
        typer.Argument(help="The script, '[S1] ... [S2] ...'; '-' reads it from standard input.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the script from this file instead.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, replaced if it exists: .wav, .mp3, .flac, .opus, .ogg, .aac or .m4a; '-' writes WAV "
            "to standard output.",
            show_default=False,
        ),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it while it comes.")] = False,
    subtitles: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write when each turn is heard: .srt, .vtt or .json; replaced if it exists.",
            show_default=False,
        ),
    ] = None,
    max_seconds: MaxSeconds = None,
    normalize: Annotated[
        bool, typer.Option(help="Rewrite the script the way the model was trained to read it.")
    ] = True,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="How it is to be spoken; for MOSS-VoiceGenerator the voice that is to speak.", show_default=False
        ),
    ] = None,
    ambient_sound: Annotated[str | None, typer.Option(help="What is heard behind it.", show_default=False)] = None,
    language: Annotated[
        str | None, typer.Option(help="MOSS-TTS: the script's language, such as French.", show_default=False)
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="MOSS-TTS, MOSS-SoundEffect: a length that is wished for; it may be missed.",
            show_default=False,
        ),
    ] = None,
    voice: VoiceNames = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLIP",
            help="Audio file, or URL, with a voice; repeat it: the first is that of [S1], or of the first speaker "
            "without a --voice.",
            show_default=False,
            rich_help_panel="Voices",
        ),
    ] = None,
    reference_text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What is said in the clip; one for every --reference, in the same order.",
            show_default=False,
            rich_help_panel="Voices",
        ),
    ] = None,
    mode: ModeOption = None,
    *,
    sampling: Sampling,
    server: Server,
) -> None:
    """Speak a script: to a file, to the loudspeaker, or both.

    Scripts of any length: what does not fit one session of the model is spoken in parts.
    """
    if (text is None) == (file is None):
        raise typer.BadParameter("give the script as TEXT or with --file FILE", param_hint="TEXT")
    with failures_in_one_line():
        outlet = Outlet(output, play, subtitles)
        voices = voices_by_speaker(voice, references_of(reference or [], reference_text or []))
        with server.client() as client:
            chunks = client.speech(
                _script(text, file),
                voices,
                instructions=instruction,
                ambient_sound=ambient_sound,
                language=language,
                duration_seconds=duration,
                mode=mode,
                normalize=None if normalize else False,
                max_seconds=max_seconds,
                timestamps=True if subtitles is not None else None,
                **asdict(sampling),
            )
            outlet.take(chunks, max_seconds)


def references_of(audio: list[str], transcripts: list[str]) -> list[Reference]:
    """Clips with their transcripts, all of them or none.

    Raises:
        ValueError: as many of one as of the other, or no transcripts.
    """
    if transcripts and len(transcripts) != len(audio):
        raise ValueError(
            f"every --reference needs its --reference-text, or none has one: got {len(audio)} references and "
            f"{len(transcripts)} texts"
        )
    return [Reference(*pair) for pair in zip(audio, transcripts or [None] * len(audio), strict=True)]


def _script(text: str | None, file: Path | None) -> str:
    if file is not None:
        return read_text(file).strip()
    return read_text(Path("-")).strip() if text == "-" else text or ""
