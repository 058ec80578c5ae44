"""The fuse tool leaves all or nothing, whatever stops it, and needs little memory."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fuse_checkpoints import check_fused, digests, to_single_file, truncate
from golden_data import GOLDEN

from sglang_moss.fuse import FuseError, fuse, staging, tool
from sglang_moss.fuse.__main__ import main
from sglang_moss.fuse.checkpoint import SINGLE_NAME, read_weights
from sglang_moss.fuse.safetensors_file import StoredTensor, build_header, read_header

pytestmark = pytest.mark.wide


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


class BrokenError(RuntimeError):
    """What the tests below break a run with."""


def stop_at(call: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] = BrokenError) -> None:
    """Make the progress callback of the run raise at its `call`-th call, that is, between two writes."""
    count = iter(range(1, 1 << 30))

    class Bar:
        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, _n_bytes: int) -> None:
            if next(count) == call:
                raise error

    monkeypatch.setattr(tool, "_progress", lambda *_: Bar())


N_TENSORS = 428  # of the golden pair; each is one progress call when written and one when read back


class TestAllOrNothing:
    @pytest.mark.parametrize("call", [1, 300, N_TENSORS, N_TENSORS + 1, 2 * N_TENSORS])
    @pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt])
    def test_broken_run_leaves_nothing(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, call: int, error: type[BaseException]
    ):
        stop_at(call, monkeypatch, error)
        with pytest.raises(error):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        assert not out.parent.exists()

    @pytest.mark.parametrize("call", [1, N_TENSORS + 1])
    def test_broken_overwrite_keeps_the_old_directory(self, out: Path, monkeypatch: pytest.MonkeyPatch, call: int):
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        (out / "mine").write_text("x")
        before = digests(out)
        stop_at(call, monkeypatch)
        with pytest.raises(BrokenError):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out, overwrite=True)
        assert digests(out) == before
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    @pytest.mark.parametrize("failing", [1, 2])
    def test_failed_rename_keeps_the_old_directory(self, out: Path, monkeypatch: pytest.MonkeyPatch, failing: int):
        out.mkdir(parents=True)
        (out / "mine").write_text("x")
        rename, count = Path.rename, iter(range(1, 100))

        def fail_once(self: Path, target: Path) -> Path:
            if next(count) == failing:
                raise OSError(5, "Input/output error", str(self))
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail_once)
        with pytest.raises(FuseError, match="Input/output error"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out, overwrite=True)
        assert digests(out).keys() == {"mine"}
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    def test_overwrite_replaces_the_whole_directory(self, out: Path):
        out.mkdir(parents=True)
        (out / "model-00009-of-00009.safetensors").write_text("stale")
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out, overwrite=True)
        assert check_fused(out, "--strict").returncode == 0
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    def test_overwrite_through_a_link_replaces_its_target(self, out: Path, tmp_path: Path):
        out.mkdir(parents=True)
        (tmp_path / "link").symlink_to(out)
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", tmp_path / "link", overwrite=True)
        assert (tmp_path / "link").is_symlink()
        assert check_fused(out).returncode == 0

    def test_output_that_appears_meanwhile_is_kept(self, out: Path, monkeypatch: pytest.MonkeyPatch):
        def appear(*args: object) -> None:
            verify(*args)
            out.mkdir()
            (out / "mine").write_text("x")

        verify = tool.verify_weights
        monkeypatch.setattr(tool, "verify_weights", appear)
        with pytest.raises(FuseError, match="appeared meanwhile"):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        assert digests(out).keys() == {"mine"}

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            ("byte", "came back with other bytes"),
            ("shape", "came back with another dtype or shape"),
            ("cut", "cut short"),
        ],
    )
    def test_damage_after_writing_is_found(self, out: Path, monkeypatch: pytest.MonkeyPatch, damage: str, message: str):
        def damaged(plan, directory: Path, on_bytes):
            digests = write(plan, directory, on_bytes)
            shard = directory / plan.shards[0].name
            raw = bytearray(shard.read_bytes())
            if damage == "byte":
                raw[-1] ^= 1
            elif damage == "shape":
                raw = raw.replace(b'"shape":[48,40]', b'"shape":[40,48]', 1)
            else:
                del raw[-1]
            shard.write_bytes(raw)
            return digests

        write = tool.write_weights
        monkeypatch.setattr(tool, "write_weights", damaged)
        with pytest.raises(FuseError, match=message):
            fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        assert not out.parent.exists()

    def test_source_that_shrinks_meanwhile(self, lm: Path, codec: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
        def shrink(*args: object):
            truncate(lm / "model-00003-of-00003.safetensors")
            return write(*args)

        write = tool.write_weights
        monkeypatch.setattr(tool, "write_weights", shrink)
        with pytest.raises(FuseError, match="ended inside tensor"):
            fuse(lm, codec, out)
        assert not out.parent.exists()

    def test_killed_run_leaves_no_config(self, out: Path, monkeypatch: pytest.MonkeyPatch):
        """What SIGKILL leaves behind cannot be cleaned up, but it must not look like a checkpoint."""

        def write(path: Path, content: bytes) -> None:
            names.append(path.name)
            write_file(path, content)

        names: list[str] = []
        write_file = tool.write_file
        monkeypatch.setattr(tool, "write_file", write)
        fuse(GOLDEN / "ttsd", GOLDEN / "codec", out)
        assert names[-1] == "config.json"
        assert names.count("config.json") == 1


# Runs the command line in a process of its own; the run says "writing" and waits when the first tensor is copied.
PAUSING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with SIGINT ignored
from sglang_moss.fuse import __main__, tool
write = tool.write_weights
def pause(plan, directory, on_bytes):
    def wait(n_bytes):
        print("writing", flush=True)
        time.sleep(60)
    return write(plan, directory, wait)
tool.write_weights = pause
sys.exit(__main__.main(sys.argv[1:]))
"""


def arguments(out: Path, *more: str) -> list[str]:
    golden = ["--model-path", str(GOLDEN / "ttsd"), "--codec-model-path", str(GOLDEN / "codec")]
    return [*golden, "--save-path", str(out), *more]


class TestProcess:
    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)]
    )
    @pytest.mark.parametrize("old", [False, True])
    def test_signal_leaves_what_was_there(self, out: Path, number: signal.Signals, status: int, old: bool):
        if old:
            out.mkdir(parents=True)
            (out / "mine").write_text("x")
        process = subprocess.Popen(
            [sys.executable, "-c", PAUSING, *arguments(out, "--overwrite")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(out.parent.glob(".fused.fusing-*"))) == 1
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == status
        assert "Traceback" not in stderr
        if old:
            assert [path.name for path in out.parent.iterdir()] == [out.name]
            assert digests(out).keys() == {"mine"}
        else:
            assert not out.parent.exists()

    def test_second_signal_does_not_stop_the_clean_up(self):
        with staging.Interruption() as interruption:
            with pytest.raises(SystemExit):
                signal.raise_signal(signal.SIGTERM)
            assert interruption.closing
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_ignored_signals_stay_ignored(self):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with staging.Interruption():
                signal.raise_signal(signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_command_without_a_terminal_asks_nothing(self, out: Path):
        command = [sys.executable, "-m", "sglang_moss.fuse", *arguments(out)]
        first = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert (first.returncode, first.stderr) == (0, "")
        assert f"fused {N_TENSORS} tensors into 1 shard (" in first.stdout
        again = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr.startswith("error: ")
        assert again.stderr.count("\n") == 1

    def test_refusal_is_one_line_and_status_1(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["--model-path", "a/b", "--codec-model-path", "c", "--save-path", str(tmp_path / "out")]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: --model-path must be a local checkpoint directory")
        assert captured.err.count("\n") == 1

    def test_memory_stays_far_below_one_tensor(self, lm: Path, codec: Path, out: Path):
        """A language model whose text embedding alone has 320 MB, in a process of its own."""
        to_single_file(lm)
        big = StoredTensor("language_model.embed_tokens.weight", "F32", (40_000, 2_000), lm, 0, 320_000_000)
        stored = {name: tensor for name, tensor in read_header(lm / SINGLE_NAME).items() if name != big.name}
        header = build_header([(big.name, big), *stored.items()])
        with (lm / SINGLE_NAME).open("wb") as file:
            file.write(header)
            file.truncate(len(header) + big.n_bytes + sum(tensor.n_bytes for tensor in stored.values()))
        script = (
            "import sys; from sglang_moss.fuse import fuse; fuse(*sys.argv[1:]); assert 'torch' not in sys.modules;"
            "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        command = [sys.executable, "-c", script, str(lm), str(codec), str(out)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(result.stdout) < 100_000  # KiB: interpreter, tqdm and one buffer of 16 MiB
        assert read_weights(out)["model.embed_tokens.weight"].shape == big.shape
