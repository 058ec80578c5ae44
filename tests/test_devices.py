"""Names of devices: what is one, and what is there."""

import pytest
import torch

from sglang_moss.devices import device_problem, name_problem


@pytest.mark.parametrize("name", ["gpu", "foo", "", "CPU", "cpu:0", "cuda:", "cuda:01", "cuda:-1", "cuda:²", "auto"])
def test_what_is_no_device_is_named_with_what_could_be(name: str):
    assert name_problem(name) == f"expected cpu, cuda or one GPU such as cuda:1, got {name!r}"
    assert device_problem(name) == name_problem(name)


def test_whoever_asks_says_what_may_be_said():
    assert name_problem("auto", auto=True) is None
    assert name_problem("cuda:1", one_gpu=False) == "expected cpu or cuda, got 'cuda:1'"
    assert name_problem("x", auto=True) == "expected auto, cpu, cuda or one GPU such as cuda:1, got 'x'"


@pytest.mark.parametrize(
    ("n_gpus", "name", "problem"),
    [
        (0, "cpu", None),
        (0, "cuda", "cuda was asked for, but this process sees no GPU; say cpu, or mend the driver"),
        (1, "cuda:0", None),
        (1, "cuda:9", "cuda:9 was asked for, but this process sees one GPU, cuda:0"),
        (4, "cuda:3", None),
        (4, "cuda:4", "cuda:4 was asked for, but this process sees 4 GPUs, cuda:0 to cuda:3"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(n_gpus, name, problem, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    assert device_problem(name) == problem
