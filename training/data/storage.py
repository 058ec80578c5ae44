"""A dataset's directory: its files, their Arrow schemas, and `dataset.json`, which comes last.

    dataset.json            what it was made with; there is none before everything else is whole
    index.arrow             a row an example: id, where it lies, its lengths
    examples-00000.arrow    fields, codes, numbers of references; about 256 MB each
    references-00000.arrow  codes of each voice, once
    rejected.jsonl          records that were left out: line, id, sentence

All are Arrow IPC files without compression, so that a reader maps them and copies nothing. Every record batch but a
file's last has `BATCH_ROWS` rows: row r lies in batch r // BATCH_ROWS.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from sglang_moss.request.template import FIELDS

from .errors import DataError

FORMAT = "sglang-moss speech dataset"
VERSION = 1
INFO_NAME = "dataset.json"
INDEX_NAME = "index.arrow"
REJECTED_NAME = "rejected.jsonl"
WORK_NAME = "work"  # folder of a dataset that is not finished
BATCH_ROWS = 64
SHARD_BYTES = 256 * 2**20
CODE_DTYPE = "<u2"
NO_REFERENCE = -1  # in place of a reference's number: a speaker without one

INTEGER_FIELDS = ("tokens",)  # of the user turn's; all others are text

EXAMPLE_SCHEMA = pa.schema(
    [pa.field("id", pa.string(), nullable=False)]
    # Null: the record has no such field.
    + [pa.field(name, pa.int64() if name in INTEGER_FIELDS else pa.string()) for name in FIELDS]
    + [
        pa.field("references", pa.list_(pa.int64())),  # null: no such field
        pa.field("codes", pa.binary(), nullable=False),  # [T, n_vq] uint16
    ]
)
REFERENCE_SCHEMA = pa.schema([pa.field("codes", pa.binary(), nullable=False)])
INDEX_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("n_frames", pa.int32(), nullable=False),
        pa.field("n_prompt_rows", pa.int32(), nullable=False),
        pa.field("n_speakers", pa.int32(), nullable=False),
        pa.field("audio_sha256", pa.binary(32)),  # of the target's file; null: its codes were given
    ]
)


@dataclass(frozen=True)
class DatasetInfo:
    """`dataset.json`.

    Attributes:
        codec_sha256: of the codec's weights, see `checkpoint.weights_digest`; training with another codec is refused.
        n_vq: codebooks of the codes.
        sampling_rate: the codec's, in Hz.
        frame_samples: samples of a frame at that rate.
        codebook_size: codes are below it.
        tokenizer_sha256: of the `tokenizer.json` by which prompt rows were counted.
        template: of the prompts whose rows were counted.
        normalizer: what texts went through.
        n_examples: rows of the index.
        n_frames: of all examples.
        n_rejected: lines of `rejected.jsonl`.
        n_given_codes: examples whose codes came with the record, which nobody checked against the codec.
        shard_rows: of each file of examples.
        reference_rows: of each file of references.
    """

    codec_sha256: str
    n_vq: int
    sampling_rate: int
    frame_samples: int
    codebook_size: int
    tokenizer_sha256: str
    template: str
    normalizer: str
    n_examples: int
    n_frames: int
    n_rejected: int
    n_given_codes: int
    shard_rows: list[int]
    reference_rows: list[int]

    @property
    def hours(self) -> float:
        """Of all examples."""
        return self.n_frames * self.frame_samples / self.sampling_rate / 3600

    def to_json(self) -> bytes:
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return (json.dumps(content, indent=2) + "\n").encode()

    @classmethod
    def read(cls, directory: Path) -> "DatasetInfo":
        """The info of a finished dataset.

        Raises:
            DataError: there is none, it is not finished, or it is of another version.
        """
        path = directory / INFO_NAME
        if not path.is_file():
            if (directory / WORK_NAME).is_dir():
                raise DataError(f"{directory} is not finished: run the same `moss-ttsd data prepare` again to go on")
            raise DataError(f"{directory} is no dataset, it has no {INFO_NAME}: make one with `moss-ttsd data prepare`")
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise DataError(f"{path} is damaged: prepare the dataset again, with --overwrite") from None
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise DataError(f"{path} is of something else than a dataset for fine-tuning")
        version = content.pop("version", None)
        if version != VERSION:
            raise DataError(f"{path} is of version {version}, this program reads version {VERSION}: prepare it again")
        names = {field.name for field in fields(cls)}
        if content.keys() != names:
            odd = ", ".join(sorted(content.keys() ^ names))
            raise DataError(f"{path} has other fields than version {VERSION} has ({odd}): prepare it again")
        return cls(**content)


def examples_name(shard: int) -> str:
    return f"examples-{shard:05}.arrow"


def references_name(shard: int) -> str:
    return f"references-{shard:05}.arrow"
