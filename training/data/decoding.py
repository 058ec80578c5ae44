"""A decoding process: clips to waveforms, one at a time; see `clips`.

Run by `workers.Worker`. The first message is a `DecoderSettings`, each further one a `ClipTask`, and each answer a
`DecodedClip`, the sentence of a problem with the clip, or a `Failure`, which is nobody's clip's.
"""

import os
from dataclasses import dataclass

from .clips import ClipTask, decode_clip
from .errors import BadRecord
from .workers import parent

# One core each: threads of libraries below would only fight with the other processes.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_NICENESS = 5  # whoever feeds the GPU comes first


@dataclass(frozen=True)
class DecoderSettings:
    """What a decoding process knows of the codec."""

    sample_rate: int  # Hz
    frame_samples: int


@dataclass(frozen=True)
class Failure:
    """Why going on would be in vain."""

    sentence: str


def main() -> None:
    connection = parent()
    os.nice(_NICENESS)
    try:
        settings: DecoderSettings = connection.recv()
        while True:
            task: ClipTask = connection.recv()
            try:
                answer = decode_clip(task, settings.sample_rate, settings.frame_samples)
            except BadRecord as problem:
                answer = str(problem)
            except MemoryError:
                answer = f"{task.path}: it takes more memory than there is"
            except OSError as error:
                answer = Failure(f"{task.waveform} cannot be written: {error.strerror}")
            connection.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone


if __name__ == "__main__":
    main()
