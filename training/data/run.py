"""The work of `prepare`: encode what the journal lacks, then write the dataset."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sglang_moss.request.prompt import special_strings
from sglang_moss.request.template import TEMPLATES

from .checkpoint import Checkpoint
from .directory import JOURNAL_NAME, PLAN_NAME, WARNINGS_NAME, publish, write_whole
from .errors import DataError
from .jobs import Jobs
from .journal import Journal
from .messages import DecoderSettings, EncoderSettings
from .pipeline import Counts, Job, Pipeline
from .plan import Plan
from .progress import Progress
from .publish import Publisher, PublishRules
from .reading import ReadingRules, ReadLine, read_lines, resolve
from .shards import DatasetWriter
from .storage import INFO_NAME, REJECTED_NAME, WORK_NAME, DatasetInfo
from .workers import Worker

_DECODERS_PER_GPU = 12  # 8 keep a GPU busy with most of what people have
_DECODERS_OF_A_CPU = 2
# A decoding process has one core: threads of libraries below would only fight with the other processes.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PACKAGE = __name__.rpartition(".")[0]


class Run:
    """One run into a directory that is locked.

    Attributes:
        frame_rate: of the codec, frames a second.
    """

    def __init__(
        self, paths: Sequence[Path], checkpoint: Checkpoint, plan: Plan, directory: Path, progress: Progress
    ) -> None:
        self._paths, self._checkpoint, self._plan, self._directory = paths, checkpoint, plan, directory
        self._progress = progress
        self._work = directory / WORK_NAME
        self._base_dir = None if plan.base_dir is None else Path(plan.base_dir)
        self._codec = checkpoint.codec.config
        self.frame_rate = self._codec.frame_rate
        self._tokenizer = checkpoint.tokenizer()
        self._rules = ReadingRules(
            normalizer=plan.normalizer,
            ignore_unknown=plan.ignore_unknown,
            n_vq=plan.n_vq,
            codebook_size=self._codec.codebook_size,
            special_strings=special_strings(self._tokenizer),
        )
        self._journal = Journal(self._work / JOURNAL_NAME, plan.n_vq)

    def encode(self, devices: Sequence[str], n_decoders: int | None) -> Counts:
        """Encode what no earlier run has encoded.

        Raises:
            DataError: see `Pipeline.run`, or a clip has changed since it was encoded.
        """
        jobs = iter(self._jobs())
        first = next(jobs, None)
        if first is None:
            return Counts()
        spool = self._new_spool()
        pipeline = Pipeline(
            self._journal,
            lambda: self._worker("decoding", DecoderSettings(self._codec.sampling_rate, self._codec.frame_samples)),
            n_decoders or _n_decoders(devices),
            [self._encoder(device) for device in devices],
            spool,
            self.frame_rate,
            self._tell,
        )
        self._counts = pipeline.counts

        def all_jobs() -> Iterator[Job]:
            yield first
            yield from jobs

        pipeline.run(all_jobs())
        shutil.rmtree(spool)
        return pipeline.counts

    def publish(self) -> None:
        """Write the dataset from the journal.

        Raises:
            DataError: no record was fit.
        """
        made = self._work / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        writer = DatasetWriter(made)
        plan = self._plan
        rules = PublishRules(
            self._tokenizer,
            self._checkpoint.tokens,
            TEMPLATES[plan.template],
            self.frame_rate,
            plan.max_rows,
            plan.max_pace,
        )
        publisher = Publisher(writer, self._journal, rules, self._path_of)
        publisher.add_all(read_lines(self._paths, self._rules))
        shard_rows, reference_rows = writer.close()
        self._journal.close()
        rejected = b"".join(finding.to_json() for finding in publisher.rejected)
        if not writer.n_examples and not publisher.rejected:
            raise DataError(
                f"{', '.join(map(str, self._paths))}: no records; begin again with --overwrite once it has some"
            )
        if not writer.n_examples:
            write_whole(self._directory / REJECTED_NAME, rejected)
            raise DataError(
                f"none of {len(publisher.rejected)} records was fit; {self._directory / REJECTED_NAME} says why. Mend "
                "the input, then begin again with --overwrite"
            )
        info = DatasetInfo(
            codec_sha256=plan.codec_sha256,
            n_vq=plan.n_vq,
            sampling_rate=self._codec.sampling_rate,
            frame_samples=self._codec.frame_samples,
            codebook_size=self._codec.codebook_size,
            tokenizer_sha256=plan.tokenizer_sha256,
            template=plan.template,
            normalizer=plan.normalizer,
            n_examples=writer.n_examples,
            n_frames=writer.n_frames,
            n_rejected=len(publisher.rejected),
            n_given_codes=publisher.n_given_codes,
            shard_rows=shard_rows,
            reference_rows=reference_rows,
        )
        (made / REJECTED_NAME).write_bytes(rejected)
        (made / WARNINGS_NAME).write_bytes(b"".join(finding.to_json() for finding in publisher.warnings))
        shutil.copyfile(self._work / PLAN_NAME, made / PLAN_NAME)
        (made / INFO_NAME).write_bytes(info.to_json())
        publish(made, self._directory)

    def _jobs(self) -> Jobs:
        n_vq = self._plan.n_vq
        max_frames = self._plan.max_rows - n_vq - 2  # and its prompt's rows, which are counted at the end
        if max_frames < 1:
            raise DataError(f"max_rows is {self._plan.max_rows}, which holds not one frame of {n_vq} codebooks")
        return Jobs(
            read_lines(self._paths, self._rules),
            self._journal,
            self._path_of,
            max_frames,
            self._codec.frame_samples,
            self._codec.sampling_rate,
            self._progress,
        )

    def _path_of(self, clip: str, line: ReadLine) -> Path:
        return resolve(clip, line.line, self._base_dir)

    def _new_spool(self) -> Path:
        """A folder for waveforms, after those of runs that were killed are gone."""
        for old in self._work.glob("spool-*"):
            shutil.rmtree(old)
        spool = self._work / f"spool-{os.getpid()}"
        spool.mkdir()
        return spool

    def _worker(self, module: str, arguments: object) -> Worker:
        env = _ONE_THREAD if module == "decoding" else {}
        return Worker(f"{_PACKAGE}.{module}", arguments, self._work / f"{module}.log", env)

    def _encoder(self, device: str) -> Worker:
        return self._worker("encoders", EncoderSettings(self._checkpoint.codec, self._plan.n_vq, device))

    def _tell(self, job: Job, problem: str | None) -> None:
        if problem is not None:
            self._progress.problem(f"{job.where}: {problem}")
        if job.is_last_of_record:
            self._progress.records(1)
        self._progress.encoded(self._counts.encoded_frames / self.frame_rate, self._counts.ready_at)


def all_devices() -> list[str]:
    """All GPUs, or the CPU."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]


def _n_decoders(devices: Sequence[str]) -> int:
    n_cores = len(os.sched_getaffinity(0))
    if all(device == "cpu" for device in devices):
        return min(_DECODERS_OF_A_CPU, n_cores)
    return max(1, min(_DECODERS_PER_GPU * len(devices), n_cores - len(devices)))
