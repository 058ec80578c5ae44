"""The container's entry point on this machine: folders for its volumes, and stand-ins for what it starts."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from golden_data import GOLDEN

ROOT = GOLDEN.parent.parent
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
CHECKPOINTS = {"MOSS-TTSD-v1.0": GOLDEN / "ttsd", "MOSS-Audio-Tokenizer": GOLDEN / "codec"}


@dataclass(frozen=True)
class Container:
    """One that has not started yet; several with the same folder share its volumes."""

    folder: Path

    def __post_init__(self) -> None:
        for path in (self.models, self.data, self.commands):
            path.mkdir(exist_ok=True)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def commands(self) -> Path:
        """Found before every other command."""
        return self.folder / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """Of the entry point: its volumes, and the stand-ins before everything else."""
        path = f"{self.commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"MOSS_MODELS": str(self.models), "MOSS_DATA": str(self.data), "PATH": path}

    def mount_checkpoints(self) -> None:
        for name, path in CHECKPOINTS.items():
            (self.models / name).symlink_to(path)

    def replace_command(self, name: str, script: str) -> None:
        """Have a bash script run where the entry point calls `name`."""
        path = self.commands / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """The entry point as the leader of a process group, as a container's processes end together."""
        return subprocess.Popen(
            [ENTRYPOINT, *arguments],
            env=os.environ | self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Its exit status, and what it printed."""
        process = self.start(*arguments, **variables)
        printed, _ = process.communicate(timeout=600)
        return process.returncode, printed
