"""The order of work: check the inputs, plan, check the output, write beside it, read back, rename."""

import shutil
import sys
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from tqdm import tqdm

from sglang_moss.request.profile import Profile

from .checkpoint import read_weights
from .compatibility import check_architectures, check_codec_fits, check_weights_complete, with_text_head
from .configs import CONFIG_NAME, fused_files
from .directories import input_directory, output_directory
from .errors import FuseError
from .evidence import find_evidence
from .json_file import read_json
from .plan import MAX_SHARD_BYTES, plan_fusion
from .staging import Interruption, leftovers, nearest_existing, staged_directory
from .writer import verify_weights, write_file, write_weights


@dataclass(frozen=True)
class FuseReport:
    """What was written."""

    path: Path
    n_tensors: int
    n_shards: int
    n_bytes: int  # of all shard files
    profile: Profile
    why: str  # the profile is this one

    def __str__(self) -> str:
        shards = "1 shard" if self.n_shards == 1 else f"{self.n_shards} shards"
        size = f"{self.n_bytes / 1e9:.2f} GB" if self.n_bytes >= 1e9 else f"{self.n_bytes / 1e6:.1f} MB"
        return (
            f"fused {self.n_tensors} tensors into {shards} ({size}), "
            f"read back and compared, as {self.profile.model} ({self.profile.name}, {self.why}): {self.path}"
        )


def fuse(
    model_path: str | PathLike[str],
    codec_model_path: str | PathLike[str],
    save_path: str | PathLike[str],
    *,
    profile: str | None = None,
    overwrite: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    show_progress: bool | None = None,
) -> FuseReport:
    """Fuse a language model of the family and its codec into one checkpoint directory.

    Never asks a question. `save_path` appears by one rename, when everything in it has been read back and compared;
    a refused, failed or interrupted run leaves nothing, and the old directory where there was one. Memory stays at
    tens of MB, whatever the size of the checkpoints.

    Args:
        model_path: directory of the published language model (`MossTTSDelayModel`) with its tokenizer.
        codec_model_path: directory of the published codec (`MossAudioTokenizerModel`).
        save_path: directory to make; its missing parents are made too.
        profile: which model of the family it is, see `sglang_moss.request.profile`; None: by evidence, see `evidence`.
        overwrite: replace `save_path` where it exists.
        max_shard_bytes: most bytes of tensors in one shard; a larger tensor gets a shard of its own.
        show_progress: progress bars on stderr; None shows them where stderr is a terminal.
    Raises:
        FuseError: a refusal, in one sentence.
    Source: the fuse script of MOSS-TTSD; the output is the same but for the Python file, which serving does not need.
    """
    try:
        lm_dir = input_directory("--model-path", model_path)
        codec_dir = input_directory("--codec-model-path", codec_model_path)
        out = output_directory(save_path, [lm_dir, codec_dir], overwrite)

        lm, codec = read_json(lm_dir / CONFIG_NAME), read_json(codec_dir / CONFIG_NAME)
        check_architectures(lm, codec)
        evidence = find_evidence(lm, profile, Path(model_path))
        check_codec_fits(lm, codec)
        files = fused_files(lm, codec, evidence.profile)
        lm_tensors, codec_tensors = with_text_head(lm, read_weights(lm_dir)), read_weights(codec_dir)
        plan = plan_fusion(lm_tensors.values(), codec_tensors.values(), max_shard_bytes)
        check_weights_complete(lm, codec, lm_tensors, codec_tensors)
        _check_free_space(out, plan.n_bytes + len(plan.index_bytes()) + sum(map(len, files.values())))

        with Interruption() as interruption, staged_directory(out, interruption, overwrite=overwrite) as staging:
            with _progress("writing", plan.n_bytes, show_progress) as bar:
                digests = write_weights(plan, staging, bar.update)
            with _progress("reading back", plan.n_bytes, show_progress) as bar:
                verify_weights(plan, staging, digests, bar.update)
            for name, content in files.items():  # config.json is the last: what lacks it is not a checkpoint
                write_file(staging / name, content)
    except OSError as error:
        raise FuseError(f"{error.strerror or error}: {error.filename or save_path}; nothing was kept") from error
    return FuseReport(out, len(digests), len(plan.shards), plan.n_bytes, evidence.profile, evidence.why)


def _check_free_space(out: Path, n_bytes: int) -> None:
    free_bytes = shutil.disk_usage(nearest_existing(out.parent)).free
    if free_bytes < n_bytes:
        stale = leftovers(out)
        hint = f" or remove what killed runs left ({', '.join(stale)})" if stale else ""
        raise FuseError(
            f"{out.parent} has {free_bytes / 1e9:.3g} GB free, but {n_bytes / 1e9:.3g} GB are needed: "
            f"free some space{hint}, or choose another disk"
        )


def _progress(what: str, n_bytes: int, show: bool | None) -> tqdm:
    disable = None if show is None else not show  # None: tqdm's own word for "only on a terminal"
    return tqdm(total=n_bytes, desc=what, unit="B", unit_scale=True, disable=disable, file=sys.stderr)
