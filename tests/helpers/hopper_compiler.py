"""Kernels compiled for a Hopper GPU, which takes none: what Triton refuses, and what does not fit, shows here."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_HOPPER = GPUTarget("cuda", 90, 32)


def spilled_bytes(kernel: Any, arguments: dict[str, str], constants: dict[str, Any], n_warps: int) -> int:
    """Bytes a thread of a kernel keeps in local memory since they fit no register.

    Args:
        arguments: types of what it is called with, such as "*bf16", by name; pointers are aligned as torch's tensors.
        constants: its `constexpr` arguments.
    Raises:
        triton.CompilationError: it cannot be compiled.
    """
    signature = {**arguments, **dict.fromkeys(constants, "constexpr")}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(arguments.values()) if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    compiled = triton.compile(source, target=_HOPPER, options={"num_warps": n_warps})
    return _local_bytes(compiled.asm["cubin"])


def _local_bytes(cubin: bytes) -> int:
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([program, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    *_, usage = (line for line in told.splitlines() if "REG:" in line)
    fields = dict(part.split(":") for part in usage.split() if ":" in part)
    return int(fields["LOCAL"]) + int(fields["STACK"])
