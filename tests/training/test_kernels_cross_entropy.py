"""The cross-entropy kernel against plain torch."""

import pytest
import torch
from triton_interpreter import DEVICE, INTERPRETED, in_interpreter_without_gpu

from sglang_moss.training.cross_entropy import cross_entropy_reference
from sglang_moss.training.kernels.cross_entropy import cross_entropy_kernel
from sglang_moss.training.rows import IGNORED

pytestmark = pytest.mark.wide

DTYPES = [torch.float32, *([] if INTERPRETED else [torch.bfloat16])]
# Rows, channels, values: one block, a part of one, several.
SHAPES = [(6, 1, 17), (12, 4, 64), (4, 2, 1024), (3, 1, 20_000)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_losses_and_gradients_equal_plain_torchs(shape, dtype):
    n_rows, n_channels, n_values = shape
    generator = torch.Generator().manual_seed(n_values)
    logits = (5 * torch.randn(n_rows, n_values, generator=generator)).to(dtype).to(DEVICE)
    labels = torch.randint(0, n_values, (n_rows,), generator=generator).to(torch.int32).to(DEVICE)
    labels[1] = IGNORED
    scales = torch.linspace(0.5, 2, n_channels, device=DEVICE)
    plain = logits.clone()
    expected = cross_entropy_reference(plain, labels, scales)
    losses = cross_entropy_kernel(logits, labels, scales)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, plain, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)
    assert losses[1] == 0
    assert not logits[1].any()


in_interpreter_without_gpu(globals())
