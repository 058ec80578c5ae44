"""Programs of this package that do for a client what takes a core or reads what strangers wrote: bounded, and killed
when nobody waits for them any more."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import HelperFailed

_NICENESS = 10  # behind the server's own work
_THREADS = "2"


@dataclass(frozen=True)
class Ended:
    """A program that has ended by itself."""

    status: int
    output: bytes
    complaint: str  # the last line of its standard error


async def run_program(module: str, arguments: Sequence[str], data: bytes, seconds: float) -> Ended:
    """Run a module of ours as a program; cancelling this kills it.

    Args:
        module: its dotted name.
        data: its standard input.
        seconds: that it may take.
    Raises:
        HelperFailed: it took longer, or died.
    """
    env = {**os.environ, "OMP_NUM_THREADS": _THREADS}
    command = ["nice", "-n", str(_NICENESS), sys.executable, "-m", module, *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    talk = asyncio.get_running_loop().run_in_executor(None, process.communicate, data)
    try:
        output, complaints = await asyncio.wait_for(asyncio.shield(talk), seconds)
    except TimeoutError:
        raise HelperFailed(f"it took more than {seconds:g} s and was given up; send something shorter") from None
    finally:
        process.kill()  # of one that has ended, nothing
        await asyncio.wait({talk})
    if process.returncode < 0:
        raise HelperFailed("the program that was to do it has died; the server's memory may be full")
    lines = complaints.decode(errors="replace").strip().splitlines()
    return Ended(process.returncode, output, lines[-1] if lines else "")
