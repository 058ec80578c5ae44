"""The fuse tool refuses what cannot be served, in one sentence, before anything is written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_checkpoints import (
    add_tensor,
    check_fused,
    digests,
    drop_from_index,
    drop_tensor,
    edit_config,
    edit_json,
    truncate,
)
from golden_data import GOLDEN

from sglang_moss.fuse import FuseError, configs, fuse, tool
from sglang_moss.fuse.checkpoint import INDEX_NAME

LM_SHARD = "model-00002-of-00003.safetensors"  # any of the golden language model's

Damage = dict[str, tuple[Callable[[Path], object], str]]  # what is done to the copy, what the refusal must say

LM_DAMAGE: Damage = {
    "missing shard": (lambda lm: (lm / LM_SHARD).unlink(), f"{LM_SHARD} is missing"),
    "truncated shard": (lambda lm: truncate(lm / LM_SHARD), f"{LM_SHARD} is cut short"),
    "shard cut in its header": (lambda lm: os.truncate(lm / LM_SHARD, 100), f"{LM_SHARD} .* is cut short"),
    "empty shard": (lambda lm: os.truncate(lm / LM_SHARD, 0), f"{LM_SHARD} .* is cut short"),
    "overlong shard": (
        lambda lm: os.truncate(lm / LM_SHARD, (lm / LM_SHARD).stat().st_size + 1),
        f"{LM_SHARD} is too long",
    ),
    "git lfs pointer": (
        lambda lm: (lm / LM_SHARD).write_text("version https://git-lfs\noid sha256:0\nsize 1\n"),
        f"{LM_SHARD} is a Git LFS pointer",
    ),
    "no index": (lambda lm: (lm / INDEX_NAME).unlink(), "lm has neither"),
    "index names an absent tensor": (
        lambda lm: edit_json(lm / INDEX_NAME, lambda i: i["weight_map"].update({"emb_ext.99.weight": LM_SHARD})),
        rf"{INDEX_NAME} names tensors that .*{LM_SHARD} lacks \(emb_ext\.99\.weight\)",
    ),
    "index lacks a tensor": (
        lambda lm: drop_from_index(lm, "emb_ext.10.weight"),
        rf"{LM_SHARD} holds tensor emb_ext\.10\.weight, but .*{INDEX_NAME} lacks it",
    ),
    "index lacks a shard": (
        lambda lm: shutil.copy(lm / LM_SHARD, lm / "model-00004-of-00004.safetensors"),
        rf"{INDEX_NAME} does not name model-00004",
    ),
    "index names a file elsewhere": (
        lambda lm: edit_json(lm / INDEX_NAME, lambda i: i["weight_map"].update({"emb_ext.1.weight": "../codec/x"})),
        "must name a file beside the index",
    ),
    "lm tensor collides after renaming": (
        lambda lm: add_tensor(lm, "model.norm.weight"),
        r"tensor language_model\.norm\.weight of .* and tensor model\.norm\.weight of .* collide",
    ),
    "lm tensor collides with a codec tensor": (
        lambda lm: add_tensor(lm, "codec_model.quantizer.input_proj.bias"),
        "collide: both claim the fused name codec_model.quantizer.input_proj.bias",
    ),
    "lm tensor without a place": (
        lambda lm: add_tensor(lm, "vision.weight"),
        r"tensor vision\.weight has no place in a fused checkpoint",
    ),
    "audio embedding missing": (
        lambda lm: drop_tensor(lm, "emb_ext.15.weight"),
        r"16 modules emb_ext\.\* \(n_vq\), but the weights in .*lm lack emb_ext\.15\.weight",
    ),
    "audio head missing": (lambda lm: drop_tensor(lm, "lm_heads.16.weight"), r"lack lm_heads\.16\.weight"),
    "text head missing": (lambda lm: drop_tensor(lm, "lm_heads.0.weight"), r"lack lm_heads\.0\.weight"),
    "n_vq below the weights": (
        lambda lm: edit_config(lm, lambda c: c.update(n_vq=8)),
        r"also hold emb_ext\.10\.weight",
    ),
    "text embedding missing": (
        lambda lm: drop_tensor(lm, "language_model.embed_tokens.weight"),
        r"the weights in .*lm lack language_model\.embed_tokens\.weight",
    ),
    "part of a layer missing": (
        lambda lm: drop_tensor(lm, "language_model.layers.1.mlp.up_proj.weight"),
        r"lack language_model\.layers\.1\.mlp\.up_proj\.weight",
    ),
    "already fused": (
        lambda lm: edit_config(lm, lambda c: c.update(codec_config={})),
        r"lm/config\.json is of a checkpoint that is already fused",
    ),
    "other architecture": (
        lambda lm: edit_config(lm, lambda c: c.update(architectures=["Qwen3ForCausalLM"])),
        "architecture must be MossTTSDelayModel, found Qwen3ForCausalLM",
    ),
    "no dtype": (
        lambda lm: edit_config(lm, lambda c: c.pop("dtype")),
        r"lm/config\.json has no field 'dtype'",
    ),
    "only torch_dtype": (
        lambda lm: edit_config(lm, lambda c: c.update(torch_dtype=c.pop("dtype"))),
        "rename that field to 'dtype'",
    ),
    "n_vq is text": (lambda lm: edit_config(lm, lambda c: c.update(n_vq="16")), "'n_vq' must be an integer"),
    "no processor_class": (
        lambda lm: edit_json(lm / "tokenizer_config.json", lambda c: c.pop("processor_class")),
        r"tokenizer_config\.json has no field 'processor_class'",
    ),
    "no tokenizer": (lambda lm: (lm / "tokenizer.json").unlink(), r"lm/tokenizer\.json is missing"),
    "config is not JSON": (
        lambda lm: (lm / "config.json").write_text("{"),
        r"lm/config\.json cannot be read as JSON",
    ),
    "tokenizer is not UTF-8": (
        lambda lm: (lm / "tokenizer.json").write_bytes(b'{"\xff": 1}'),
        r"tokenizer\.json cannot be read as JSON",
    ),
    "index is no object": (lambda lm: (lm / INDEX_NAME).write_text("[]"), "must hold a JSON object, found list"),
}

CODEC_DAMAGE: Damage = {
    "no weights": (
        lambda codec: [path.unlink() for path in codec.glob("model*")],
        "codec has neither model.safetensors.index.json nor model.safetensors",
    ),
    "codec tensor bears an lm name": (
        lambda codec: add_tensor(codec, "model.norm.weight"),
        "collide: both claim the fused name model.norm.weight",
    ),
    "too few codebooks": (
        lambda codec: edit_config(codec, lambda c: c["quantizer_kwargs"].update(num_quantizers=15)),
        r"codec/config\.json: quantizer_kwargs\.num_quantizers is 15, but n_vq in .*lm/config\.json is 16",
    ),
    "other codebook size": (
        lambda codec: edit_config(codec, lambda c: c["quantizer_kwargs"].update(codebook_size=255)),
        r"codebook_size is 255, but audio_vocab_size in .* is 256",
    ),
    "other sampling rate": (
        lambda codec: edit_config(codec, lambda c: c.update(sampling_rate=48000)),
        r"codec/config\.json: sampling_rate is 48000, but sampling_rate in .* is 24000",
    ),
    "no sampling rate": (
        lambda codec: edit_config(codec, lambda c: c.pop("sampling_rate")),
        r"codec/config\.json has no field 'sampling_rate'",
    ),
    "codebook missing": (
        lambda codec: drop_tensor(codec, "quantizer.quantizers.3.codebook.weight"),
        r"codec lack quantizer\.quantizers\.3\.codebook\.weight",
    ),
    "fused as codec": (
        lambda codec: shutil.copy(GOLDEN / "fused" / "config.json", codec),
        r"codec/config\.json is of a checkpoint that is already fused",
    ),
    "lm given twice": (
        lambda codec: shutil.copy(GOLDEN / "ttsd" / "config.json", codec),
        "must be MossAudioTokenizerModel, found MossTTSDelayModel .the language model, which --model-path takes",
    ),
    "no config": (lambda codec: (codec / "config.json").unlink(), r"codec/config\.json is missing"),
}

SPECIAL_TOKEN_FIELDS = [*configs.PROCESSOR_TOKENS.values(), "pad_token_id", "im_start_token_id", "im_end_token_id"]


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "ttsd", tmp_path / "ttsd_lm"))


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "codec", tmp_path / "codec"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to fuse to: the only thing that may appear in its parent, which does not exist yet."""
    return tmp_path / "made" / "fused"


class TestRefusals:
    @pytest.mark.parametrize(
        ("damaged", "damage"), [*(("lm", name) for name in LM_DAMAGE), *(("codec", name) for name in CODEC_DAMAGE)]
    )
    def test_damaged_input_is_refused_before_anything_is_written(
        self, lm: Path, codec: Path, out: Path, damaged: str, damage: str
    ):
        do, message = LM_DAMAGE[damage] if damaged == "lm" else CODEC_DAMAGE[damage]
        do(lm if damaged == "lm" else codec)
        with pytest.raises(FuseError, match=message) as refusal:
            fuse(lm, codec, out)
        assert "\n" not in str(refusal.value)
        assert not out.parent.exists()

    @pytest.mark.parametrize("field", SPECIAL_TOKEN_FIELDS)
    def test_special_token_missing_from_the_tokenizer(self, lm: Path, codec: Path, out: Path, field: str):
        token_id = json.loads((lm / "config.json").read_text())[field]

        def drop(tokenizer: dict) -> None:
            tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["id"] != token_id]

        edit_json(lm / "tokenizer.json", drop)
        with pytest.raises(FuseError, match=rf"tokenizer\.json: added_tokens lacks id {token_id}, .* as {field}"):
            fuse(lm, codec, out)
        assert not out.parent.exists()

    def test_more_codes_in_the_codec_than_in_the_language_model(self, out: Path):
        with pytest.raises(FuseError, match=r"codebook_size is 256, but audio_vocab_size in .*ttsd_nvq32.* is 64"):
            fuse(GOLDEN / "ttsd_nvq32", GOLDEN / "codec", out)

    def test_swapped_arguments_get_their_own_hint(self, out: Path):
        with pytest.raises(FuseError, match="swap --model-path and --codec-model-path"):
            fuse(GOLDEN / "codec", GOLDEN / "ttsd", out)

    def test_hub_id_is_answered_with_the_download_command(self, out: Path):
        with pytest.raises(FuseError, match=r"hf download OpenMOSS-Team/MOSS-TTSD-v1\.0 --local-dir DIR"):
            fuse("OpenMOSS-Team/MOSS-TTSD-v1.0", GOLDEN / "codec", out)
        with pytest.raises(FuseError, match="/nowhere/at/all does not exist: check the path"):
            fuse(GOLDEN / "ttsd", "/nowhere/at/all", out)

    def test_file_as_input(self, out: Path):
        with pytest.raises(FuseError, match="pass its directory"):
            fuse(GOLDEN / "ttsd" / "config.json", GOLDEN / "codec", out)

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("place", ["ttsd_lm", "ttsd_lm/fused", "codec", "codec/a/b", "."])
    def test_output_in_or_around_an_input(self, lm: Path, codec: Path, tmp_path: Path, place: str, overwrite: bool):
        before = digests(lm) | digests(codec)
        with pytest.raises(FuseError, match="must not lie in each other"):
            fuse(lm, codec, tmp_path / place, overwrite=overwrite)
        assert digests(lm) | digests(codec) == before

    def test_output_that_holds_what_an_input_links_to(self, lm: Path, codec: Path, tmp_path: Path):
        store = tmp_path / "store"
        store.mkdir()
        (lm / LM_SHARD).rename(store / "blob")
        (lm / LM_SHARD).symlink_to(store / "blob")
        with pytest.raises(FuseError, match="must not lie in each other"):
            fuse(lm, codec, store, overwrite=True)
        fuse(lm, codec, tmp_path / "fused")
        assert check_fused(tmp_path / "fused").returncode == 0

    def test_existing_output_without_overwrite(self, out: Path):
        out.mkdir(parents=True)
        (out / "mine").write_text("x")
        with pytest.raises(FuseError, match="exists: pass --overwrite"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        assert digests(out).keys() == {"mine"}

    def test_file_as_output(self, tmp_path: Path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(FuseError, match="not a directory"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", tmp_path / "file", overwrite=True)
        assert (tmp_path / "file").read_text() == "x"

    def test_empty_output_path(self):
        with pytest.raises(FuseError, match="--save-path is empty"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", "", overwrite=True)

    def test_output_around_the_current_directory(self, out: Path, monkeypatch: pytest.MonkeyPatch):
        (out / "deep").mkdir(parents=True)
        monkeypatch.chdir(out / "deep")
        with pytest.raises(FuseError, match="holds the current directory"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out, overwrite=True)

    def test_no_disk_space(self, out: Path, monkeypatch: pytest.MonkeyPatch):
        needed = sum(path.stat().st_size for path in (GOLDEN / "fused").iterdir()) + 4_000_000
        usage = shutil.disk_usage(GOLDEN)._replace(free=needed // 2)
        monkeypatch.setattr(tool.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(FuseError, match=r"GB free, but .* GB are needed"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        assert not out.parent.exists()

    def test_unwritable_place(self, monkeypatch: pytest.MonkeyPatch, out: Path):
        def refuse(self: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(FuseError, match=r"Permission denied: .*fusing"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
