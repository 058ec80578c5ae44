"""The fuse tool gives the reference's output, byte for byte."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fuse_checkpoints import check_fused, digests, edit_shard, tensor_bytes, to_single_file
from golden_data import GOLDEN
from safetensors.torch import save_file

from sglang_moss.fuse import configs, fuse
from sglang_moss.fuse.checkpoint import INDEX_NAME, SINGLE_NAME, read_weights
from sglang_moss.fuse.safetensors_file import DTYPE_BITS, build_header, file_order, read_header


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "ttsd", tmp_path / "lm"))


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "codec", tmp_path / "codec"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to fuse to: the only thing that may appear in its parent, which does not exist yet."""
    return tmp_path / "made" / "fused"


class TestOutput:
    @pytest.mark.parametrize("options", [(), ("--strict",)])
    def test_golden_check_agrees(self, out: Path, options: tuple[str, ...]):
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        result = check_fused(out, *options)
        assert result.returncode == 0, result.stdout

    def test_every_file_has_the_bytes_of_the_reference(self, out: Path):
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        files = json.loads((GOLDEN / "fused_manifest.json").read_text())["files"]
        expected = {name: entry["sha256"] for name, entry in files.items() if not name.endswith(".py")}
        assert digests(out) == expected

    def test_report_counts_what_was_written(self, out: Path):
        report = fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        shards = list(out.glob("*.safetensors"))
        assert (report.path, report.n_shards) == (out, len(shards))
        assert report.n_bytes == sum(shard.stat().st_size for shard in shards)
        assert report.n_tensors == len(read_weights(out))

    @pytest.mark.parametrize("max_shard_bytes", [20_000, 70_000, 1_000_000])
    def test_any_shard_limit_gives_the_same_tensors(self, out: Path, max_shard_bytes: int):
        report = fuse(GOLDEN / "ttsd", GOLDEN / "codec", out, max_shard_bytes=max_shard_bytes)
        assert report.n_shards > 1
        assert check_fused(out).returncode == 0
        for shard in out.glob("*.safetensors"):
            sizes = [tensor.n_bytes for tensor in read_header(shard).values()]
            assert sum(sizes) <= max_shard_bytes or len(sizes) == 1

    def test_shards_hold_the_language_model_first(self, out: Path):
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out, max_shard_bytes=100_000)
        weight_map = json.loads((out / INDEX_NAME).read_text())["weight_map"]
        last_lm = max(shard for name, shard in weight_map.items() if not name.startswith("codec_model."))
        first_codec = min(shard for name, shard in weight_map.items() if name.startswith("codec_model."))
        assert last_lm <= first_codec

    def test_single_file_checkpoints_give_the_same_tensors(self, lm: Path, codec: Path, out: Path):
        to_single_file(lm)
        to_single_file(codec)
        fuse(lm, codec, out)
        assert check_fused(out).returncode == 0

    def test_bf16_and_other_dtypes_are_copied_bytewise(self, lm: Path, codec: Path, out: Path):
        values = {
            "norm": torch.randn(64, 3).to(torch.bfloat16),
            "scale": torch.randn(5).to(torch.float16),
            "steps": torch.arange(7),
            "mask": torch.tensor([True, False, True]),
            "small": torch.randn(9).to(torch.float8_e4m3fn),
            "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
            "empty": torch.zeros(0, 4),
        }
        to_single_file(lm)
        to_single_file(codec)
        edit_shard(codec / SINGLE_NAME, lambda tensors: tensors.update(values))
        edit_shard(
            lm / SINGLE_NAME,
            lambda tensors: tensors.update({k: v.to(torch.bfloat16) for k, v in tensors.items()}),
        )
        fuse(lm, codec, out)
        fused, before = tensor_bytes(out), tensor_bytes(codec)
        for name in values:
            assert fused[f"codec_model.{name}"] == before[name]
        for name, stored in tensor_bytes(lm).items():
            assert stored[0] == "BF16"
            assert fused[name.replace("language_model.", "model.")] == stored

    def test_layout_equals_the_safetensors_library(self, tmp_path: Path):
        dtypes = [
            torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn, torch.int16, torch.uint16,
            torch.float16, torch.bfloat16, torch.int32, torch.uint32, torch.float32, torch.complex64, torch.float64,
            torch.int64, torch.uint64,
        ]  # fmt: skip
        tensors = {f"{k}.{i}": torch.ones(3, 1 + k).to(dtype) for i, dtype in enumerate(dtypes) for k in range(2)}
        save_file(tensors, tmp_path / "library.safetensors")
        stored = read_header(tmp_path / "library.safetensors")
        assert {tensor.dtype for tensor in stored.values()} <= DTYPE_BITS.keys()
        pairs = sorted(stored.items(), key=lambda pair: file_order(pair[1].dtype, pair[0]))
        header = build_header(pairs)
        assert (tmp_path / "library.safetensors").read_bytes().startswith(header)

    def test_tokenizer_config_keeps_all_but_the_processor_class(self, lm: Path, codec: Path, out: Path):
        raw = '{"in": {"processor_class": "kept"}, "note": "\\"processor_class\\":",\r\n "processor_class" :"A"}'
        (lm / "tokenizer_config.json").write_bytes(raw.encode())
        fuse(lm, codec, out)
        written = (out / "tokenizer_config.json").read_bytes().decode()
        assert written == raw.replace('"A"', '"MossTTSDelayWithCodecProcessor"')

    def test_optional_tokenizer_files_may_be_absent(self, lm: Path, codec: Path, out: Path):
        for name in configs.OPTIONAL_TOKENIZER_FILES:
            (lm / name).unlink()
        fuse(lm, codec, out)
        assert not {path.name for path in out.iterdir()} & set(configs.OPTIONAL_TOKENIZER_FILES)

    def test_files_get_the_usual_permissions(self, out: Path):
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        (out.parent / "plain").mkdir()
        assert out.stat().st_mode == (out.parent / "plain").stat().st_mode
