"""Memory that bodies took is kept: the next ones cost no page faults."""

import subprocess
import sys

_PROGRAM = """
import resource
from sglang_moss.server.heap import keep_freed_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        bodies = [b"a" * size for size in 5 * [1_300_000]]
        del bodies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
assert keep_freed_memory()
faults()
print(faults())
"""


_BURST = """
from pathlib import Path
from sglang_moss.server.heap import keep_freed_memory

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

assert keep_freed_memory()
before = resident()
bodies, kept = [], []
for _ in range(24):
    bodies.append(b"a" * 20_000_000)
    kept.append(b"b" * 600_000)  # what outlives them lies between them
del bodies
print(resident() - before - sum(map(len, kept)))
"""


def test_large_bodies_leave_nothing_behind():
    printed = subprocess.run([sys.executable, "-c", _BURST], check=True, capture_output=True, text=True, timeout=60)
    assert int(printed.stdout) < 60_000_000


def test_memory_is_not_given_back_after_each_body():
    printed = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60)
    before, after = map(int, printed.stdout.split())
    assert after < before / 10
