"""Speech that streams from the server into a file, a player or both, with a bar that tells how fast it comes."""

import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import typer
from tqdm import tqdm

from ..audio_file import STDOUT, AudioFile, check_writable
from ..errors import UnusableAnswer
from ..playing import Player, player_program
from ..speech import SpeechChunk
from ..turns import check_subtitles, write_subtitles

_CUT_WITHIN_S = 0.08  # of `max_seconds`: one frame


@dataclass(frozen=True)
class Outlet:
    """Where speech goes.

    Args:
        path: the file; `-` is standard output. None: none.
        plays: whether it is played too.
        subtitles: file of the times of its turns. None: none.
    Raises:
        BadParameter: neither.
        ValueError: the file could not be written, or there is no player.
    """

    path: Path | None
    plays: bool
    subtitles: Path | None = None

    def __post_init__(self) -> None:
        if self.path is None and not self.plays:
            raise typer.BadParameter("say where the speech goes: -o FILE, --play, or both", param_hint="--output")
        if self.path is not None:
            check_writable(self.path)
        if self.subtitles is not None:
            check_subtitles(self.subtitles)
        if self.plays:
            player_program()

    def take(self, chunks: Generator[SpeechChunk, None, None], max_seconds: float | None = None) -> None:
        """Let speech out as it comes, and tell what it was; `chunks` is closed in any case, which ends the request.

        Raises:
            ClientError: the speech fails; then there is no file.
            OSError: the file cannot be written, or the player fails; then the file is whole.
        """
        started = time.monotonic()
        seconds = 0.0
        with ExitStack() as stack:
            stack.enter_context(closing(chunks))
            first = next(chunks, None)
            if first is None or not first.pcm:
                raise UnusableAnswer("the server answered without a sound")
            first_sound_s = time.monotonic() - started
            # The file last, so that it is whole before the player is waited for.
            player = stack.enter_context(Player(first.sample_rate)) if self.plays else None
            file = None if self.path is None else stack.enter_context(AudioFile(self.path, first.sample_rate))
            # `disable=None`: no bar where nobody looks.
            bar = stack.enter_context(tqdm(unit=" s of audio", unit_scale=True, disable=None, leave=False))
            bar.set_postfix_str(f"first sound after {first_sound_s * 1000:.0f} ms")
            is_cut, turns = False, None
            for chunk in chain([first], chunks):
                is_cut |= chunk.finish_reason == "length"
                turns = turns if chunk.turns is None else chunk.turns
                if file is not None:
                    file.write(chunk.pcm)
                if player is not None:
                    player.write(chunk.pcm)
                    if player.has_ended and file is None and self.subtitles is None:
                        break
                seconds += chunk.seconds
                bar.update(chunk.seconds)
            took_s = time.monotonic() - started
            bar.close()
        if self.subtitles is not None:
            if turns is None:
                raise UnusableAnswer("the server does not tell when its turns are heard: it is older than this client")
            write_subtitles(self.subtitles, turns)
        cut = ""
        if max_seconds is not None and (is_cut or seconds > max_seconds - _CUT_WITHIN_S):
            cut = " (cut by --max-seconds)"
        elif is_cut:
            cut = " (cut: far longer than its text suggests; --max-seconds allows more)"
        typer.echo(
            f"{seconds:.2f} s of audio{cut}, first sound after {first_sound_s:.2f} s, all after {took_s:.2f} s"
            + (f": {self.path}" if file is not None else ""),
            err=self.path == STDOUT,
        )
