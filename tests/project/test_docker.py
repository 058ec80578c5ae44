"""The container: its files are well formed and agree with each other, and its entry point does what it promises."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from container import CHECKPOINTS, ROOT, Container
from fuse_checkpoints import check_fused, digests
from waiting import wait_for

pytestmark = pytest.mark.wide

DOCKER = ROOT / "docker"
TOOLS = Path(sys.executable).parent
# Says how it was called, and ends as asked.
SERVE = 'echo "called: $*"; echo "offline: $HF_HUB_OFFLINE"; exit "${STATUS:-0}"'
# A server that ends in an orderly way when asked to.
SERVE_UNTIL_TOLD = 'trap "echo stopping; exit 0" TERM; echo serving; while true; do sleep 0.05; done'
# The fuse tool, which writes everything and then waits to be killed before it reads it back.
HANGING_FUSE = """
exec {python} - "${{@:3}}" <<'END'
import pathlib, sys, time
from sglang_moss.fuse import __main__, tool
def hang(*_):
    pathlib.Path({mark!r}).touch()
    time.sleep(60)
tool.verify_weights = hang
sys.exit(__main__.main(sys.argv[1:]))
END
"""


@pytest.fixture
def container(tmp_path: Path) -> Container:
    made = Container(tmp_path)
    made.replace_command("sglang", SERVE)
    return made


def lint(*command: str | Path) -> None:
    tool = TOOLS / str(command[0])
    if not tool.exists():
        pytest.skip(f"{tool.name} is not installed (the extra `dev` has it)")
    done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def hang_while_fusing(container: Container) -> Path:
    """Have the fuse tool hang before its last step; returns the file that appears then."""
    mark = container.folder / "hanging"
    container.replace_command("python", HANGING_FUSE.format(python=sys.executable, mark=str(mark)))
    return mark


def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


class TestFiles:
    def test_the_dockerfile_passes_hadolint(self):
        lint("hadolint", DOCKER / "Dockerfile")

    def test_the_entry_point_passes_shellcheck(self):
        lint("shellcheck", DOCKER / "entrypoint.sh")

    def test_the_compose_file_fits_its_specification(self):
        lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")

    def test_compose_reads_the_variables_that_its_example_names(self):
        read = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
        named = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
        assert read == named

    def test_compose_sets_only_what_the_entry_point_reads(self):
        script = (DOCKER / "entrypoint.sh").read_text()
        for name in compose()["services"]["server"]["environment"]:
            assert f"${{{name}:" in script

    def test_volumes_are_mounted_where_the_image_keeps_things(self):
        mounts = {volume.rpartition(":")[2] for volume in compose()["services"]["server"]["volumes"]}
        image = (DOCKER / "Dockerfile").read_text()
        [folders] = re.findall(r"install --directory --owner=moss --group=moss (.*)", image)
        assert mounts == set(folders.split())

    def test_the_image_gets_every_package_and_nothing_else_of_the_tree(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        allowed = {line[1:] for line in lines if line.startswith("!")}
        packages = set(project["tool"]["setuptools"]["package-dir"].values())
        files = {"LICENSE", "README.md", "pyproject.toml", "constraints.txt", "overrides.txt", "docker/entrypoint.sh"}
        assert allowed == packages | files
        assert "*" in lines

    def test_the_image_says_the_projects_version_and_has_the_wheels_cuda(self):
        image = (DOCKER / "Dockerfile").read_text()
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        assert f'image.version="{version}"' in image
        [toolkit] = re.findall(r"^cuda-toolkit==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        [based_on] = re.findall(r"^FROM nvidia/cuda:(\S+)-devel-", image, re.MULTILINE)
        assert based_on.split(".")[:2] == toolkit.split(".")[:2], (
            "what one compiles, the other runs within a minor version"
        )


class TestServing:
    def test_the_first_start_fuses_and_serves(self, container: Container):
        container.mount_checkpoints()
        status, printed = container.run("--codec-slots", "6")
        assert status == 0, printed
        assert check_fused(container.data / "fused", "--strict").returncode == 0
        fused, voices = container.data / "fused", container.data / "voices"
        assert (
            f"called: serve --model-path {fused} --delay-pattern --voices-dir {voices} --host 0.0.0.0 --port 30000 "
            "--codec-slots 6\n"
        ) in printed
        assert "offline: 1\n" in printed

    def test_the_second_start_needs_neither_checkpoints_nor_the_tool(self, container: Container):
        container.mount_checkpoints()
        container.run()
        before = digests(container.data / "fused")
        shutil.rmtree(container.models)
        container.replace_command("python", "echo fusing again; exit 1")
        status, printed = container.run()
        assert (status, "fusing" in printed, "called: serve" in printed) == (0, False, True)
        assert digests(container.data / "fused") == before

    def test_the_exit_status_is_the_servers(self, container: Container):
        container.mount_checkpoints()
        assert container.run(STATUS="7")[0] == 7

    def test_a_key_and_a_port_are_passed_on(self, container: Container):
        container.mount_checkpoints()
        printed = container.run(MOSS_API_KEY="two words", MOSS_PORT="8080")[1]
        assert "--port 8080 --api-key=two words\n" in printed
        assert "--api-key=-begins so\n" in container.run(MOSS_API_KEY="-begins so")[1]
        assert "--api-key" not in container.run(MOSS_API_KEY="")[1]

    def test_a_signal_reaches_the_server(self, container: Container):
        container.mount_checkpoints()
        container.replace_command("sglang", SERVE_UNTIL_TOLD)
        process = container.start()
        assert process.stdout is not None
        assert any(line == "serving\n" for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=120)
        assert (process.returncode, printed) == (0, "stopping\n")

    def test_another_command_runs_instead(self, container: Container):
        status, printed = container.run("bash", "-c", "echo hello; exit 3")
        assert (status, printed) == (3, "hello\n")


class TestRefusals:
    def test_missing_checkpoints_are_named(self, container: Container):
        (container.models / "MOSS-TTSD-v1.0").symlink_to(CHECKPOINTS["MOSS-TTSD-v1.0"])
        status, printed = container.run()
        assert status == 1
        assert "MOSS-Audio-Tokenizer is missing" in printed
        assert "MOSS_DOWNLOAD=1" in printed
        assert "called" not in printed

    def test_a_checkpoint_that_does_not_fuse_stops_the_start(self, container: Container):
        container.mount_checkpoints()
        (container.models / "MOSS-Audio-Tokenizer").unlink()
        (container.models / "MOSS-Audio-Tokenizer").symlink_to(CHECKPOINTS["MOSS-TTSD-v1.0"])
        status, printed = container.run()
        assert (status, "error: " in printed, "called" in printed) == (1, True, False)
        assert not (container.data / "fused").exists()

    def test_a_tool_that_fails_at_once_stops_the_start(self, container: Container):
        container.mount_checkpoints()
        container.replace_command("python", "exit 3")
        slow = container.folder / "slow.sh"  # the tool has ended before the entry point's next command
        slow.write_text("set -T; trap 'sleep 0.05' DEBUG\n")
        status, printed = container.run(BASH_ENV=str(slow))
        assert (status, "called" in printed) == (3, False), printed

    def test_a_volume_that_is_not_there_is_named(self, container: Container):
        container.data.rmdir()
        status, printed = container.run()
        assert (status, f"{container.data} cannot be written" in printed) == (1, True)


class TestDownload:
    @pytest.fixture
    def downloading(self, container: Container) -> Container:
        """One whose `hf` has the checkpoints, and with HALF=1 breaks off in the middle of them."""
        hub = container.folder / "OpenMOSS-Team"
        hub.mkdir()
        for name, path in CHECKPOINTS.items():
            (hub / name).symlink_to(path)
        container.replace_command(
            "hf",
            f"""
            echo "hf $*"
            [[ "$1 $3" == "download --local-dir" ]] || exit 9
            mkdir -p "$4" && cp {container.folder}/"$2"/config.json "$4"
            [[ -z "$HALF" ]] || exit 1
            cp {container.folder}/"$2"/* "$4"
            """,
        )
        return container

    def test_what_is_missing_is_downloaded_and_fused(self, downloading: Container):
        status, printed = downloading.run(MOSS_DOWNLOAD="1")
        assert status == 0, printed
        assert printed.count("hf download OpenMOSS-Team/") == 2
        assert sorted(path.name for path in downloading.models.iterdir()) == sorted(CHECKPOINTS)
        assert check_fused(downloading.data / "fused", "--strict").returncode == 0

    def test_half_a_download_is_never_taken_for_a_checkpoint(self, downloading: Container):
        status, printed = downloading.run(MOSS_DOWNLOAD="1", HALF="1")
        assert (status, "called" in printed) == (1, False)
        assert not any((downloading.models / name).exists() for name in CHECKPOINTS)
        assert downloading.run(MOSS_DOWNLOAD="1")[0] == 0


class TestInterruptions:
    def test_two_that_start_together_fuse_once(self, container: Container):
        container.mount_checkpoints()
        count, goes_on = container.folder / "count", container.folder / "goes_on"
        waits = f"until [[ -e {goes_on} ]]; do sleep 0.02; done"
        container.replace_command("python", f'echo fused >> {count}; {waits}; exec {sys.executable} "$@"')
        both = [container.start(), container.start()]

        def read(process: subprocess.Popen[str]) -> str:
            assert process.stdout is not None
            text = ""
            for line in process.stdout:
                text += line
                if "waiting for another container" in line:
                    goes_on.touch()
            return text

        with ThreadPoolExecutor(2) as pool:
            reading = [pool.submit(read, process) for process in both]
            try:
                wait_for(goes_on.exists)
            finally:
                goes_on.touch()
            printed = [text.result() for text in reading]
        assert [process.wait(120) for process in both] == [0, 0], printed
        assert all("called: serve" in text for text in printed)
        assert count.read_text() == "fused\n"
        assert sum("waiting for another container" in text for text in printed) == 1

    def test_one_that_is_killed_while_fusing_leaves_nothing_to_the_next(self, container: Container):
        container.mount_checkpoints()
        mark = hang_while_fusing(container)
        process = container.start()
        wait_for(mark.exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
        assert list(container.data.glob(".fused.fusing-*/*.safetensors"))
        assert not (container.data / "fused").exists()
        (container.commands / "python").unlink()
        assert container.run()[0] == 0
        assert sorted(path.name for path in container.data.iterdir()) == [".fusing.lock", "fused"]
        assert check_fused(container.data / "fused", "--strict").returncode == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_while_fusing_ends_it_tidily(self, container: Container, number: signal.Signals):
        container.mount_checkpoints()
        mark = hang_while_fusing(container)
        process = container.start()
        wait_for(mark.exists)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 128 + signal.SIGTERM, printed
        assert "called" not in printed
        assert [path.name for path in container.data.iterdir()] == [".fusing.lock"]
