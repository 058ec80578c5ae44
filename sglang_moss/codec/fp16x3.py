"""Products of float32 matrices on tensor cores: each operand as two halves, high and low, in float16.

    x  =  high + low / 2048                     11 bits each: 22 of the 24 of float32
    x @ w.T  =  high_x @ high_w.T  +  (high_x @ low_w.T + low_x @ high_w.T) / 2048

The product of the two low halves, 2^-22 of the whole, is left out. Where sums are as good as float32's, as on a CPU, so
is the result. Tensor cores cut what their sums have too many bits for, which makes long ones a little worse.

The weight keeps its memory: a row of K float32 becomes one of 2 K halves, high ones first. A row of the other operand
has its low ones first, so that one product of rows of 2 K is both of the small terms.

Source: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores", 2022 (there "halfhalf").
"""

import torch
from torch import Tensor, nn

from sglang_moss.codec import kernels

LOW_SCALE = 2048.0  # 2^11: times this, what the high half leaves of a float32 is again of its size


class Fp16x3Linear(nn.Module):
    """`nn.Linear` without a bias, float32 in and out, finite up to 65,504 in weights and rows.

    Args:
        weight: [n_out, n_in] float32, filled at any time before `pack`, which leaves the halves in its memory.
    """

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight
        self.is_packed = False

    @property
    def halves(self) -> Tensor:
        """[n_out, 2 * n_in] float16, the weight's memory: what `pack` fills, and captured graphs may read before."""
        return self.weight.detach().view(torch.float16)

    @torch.no_grad()
    def pack(self) -> None:
        """Turn the weight into its halves, where it lies; once."""
        if not self.is_packed:
            self.halves.copy_(torch.cat(halves_of(self.weight), dim=1))
            self.is_packed = True

    def forward(self, x: Tensor) -> Tensor:
        """[..., n_in] -> [..., n_out], float32."""
        n_in = x.shape[-1]
        rows = split(x.reshape(-1, n_in))
        weight = self.halves.T
        high, high_weight = rows[:, n_in:], weight[:n_in]
        if rows.is_cuda:
            small = torch.mm(rows, weight, out_dtype=torch.float32)
            out = torch.addmm(small, high, high_weight, out_dtype=torch.float32, beta=1 / LOW_SCALE)
        else:
            out = torch.addmm(rows.float() @ weight.float(), high.float(), high_weight.float(), beta=1 / LOW_SCALE)
        return out.unflatten(0, x.shape[:-1])


def split(x: Tensor) -> Tensor:
    """[R, K] float32 -> [R, 2 * K] float16, low halves first."""
    if kernels.run_on(x):
        from sglang_moss.codec.kernels.fp16x3 import split as split_by_kernel

        return split_by_kernel(x)
    return split_reference(x)


def split_reference(x: Tensor) -> Tensor:
    """`split` in plain torch."""
    high, low = halves_of(x)
    return torch.cat((low, high), dim=1)


def halves_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """float32 -> float16 of the same shape: what is nearest, and 2048 times what that leaves."""
    high = x.half()
    return high, ((x - high.float()) * LOW_SCALE).half()
