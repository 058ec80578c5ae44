"""Whether a device that somebody has named is there, asked before work that would end in torch's own words."""

import re

_NAME = re.compile(r"cpu|cuda(?::(0|[1-9][0-9]{0,3}))?")


def name_problem(name: str, *, auto: bool = False, one_gpu: bool = True) -> str | None:
    """What is wrong with the name of a device, as the end of a sentence; None: nothing is.

    Args:
        name: `cpu`, `cuda`, or one GPU such as `cuda:1`.
        auto: `auto` may be said.
        one_gpu: a number may be said.
    """
    found = _NAME.fullmatch(name)
    if (auto and name == "auto") or (found is not None and (one_gpu or found[1] is None)):
        return None
    known = [*["auto"] * auto, "cpu", "cuda", *["one GPU such as cuda:1"] * one_gpu]
    return f"expected {', '.join(known[:-1])} or {known[-1]}, got {name!r}"


def device_problem(name: str, *, auto: bool = False, one_gpu: bool = True) -> str | None:
    """The same, and whether this machine has the device."""
    if (problem := name_problem(name, auto=auto, one_gpu=one_gpu)) is not None:
        return problem
    if not name.startswith("cuda"):
        return None
    import torch  # only here: it takes seconds

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not n_gpus:
        return f"{name} was asked for, but this process sees no GPU; say cpu, or mend the driver"
    if int(name.partition(":")[2] or 0) >= n_gpus:
        seen = "one GPU, cuda:0" if n_gpus == 1 else f"{n_gpus} GPUs, cuda:0 to cuda:{n_gpus - 1}"
        return f"{name} was asked for, but this process sees {seen}"
    return None
