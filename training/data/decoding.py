"""A decoding process: clips to waveforms, one at a time; see `clips`.

Run by `workers.Worker`. The first message is a `DecoderSettings`, each further one a `ClipTask`, and each answer a
`DecodedClip`, the sentence of a problem with the clip, or a `Failure`, which is nobody's clip's.
"""

import os

from .clips import decode_clip
from .errors import BadRecord
from .messages import ClipTask, DecoderSettings, Failure
from .workers import parent

_NICENESS = 5  # whoever feeds the GPU comes first


def main() -> None:
    connection = parent()
    os.nice(_NICENESS)
    try:
        settings: DecoderSettings = connection.recv()
        while True:
            task: ClipTask = connection.recv()
            try:
                answer = decode_clip(task, settings.sampling_rate, settings.frame_samples)
            except BadRecord as problem:
                answer = str(problem)
            except MemoryError:
                answer = f"{task.path}: it takes more memory than there is"
            except OSError as error:
                answer = Failure(f"{task.waveform} cannot be written: {error.strerror}")
            connection.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone
