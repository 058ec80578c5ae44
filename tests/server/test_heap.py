"""Memory that bodies took is kept: the next ones cost no page faults."""

import subprocess
import sys

_PROGRAM = """
import resource
from sglang_moss.server.heap import keep_freed_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        bodies = [b"a" * size for size in 5 * [10_000_000]]
        del bodies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
assert keep_freed_memory()
faults()
print(faults())
"""


def test_memory_is_not_given_back_after_each_body():
    printed = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60)
    before, after = map(int, printed.stdout.split())
    assert after < before / 10
