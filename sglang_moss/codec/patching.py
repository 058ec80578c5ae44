"""Patching: the reshape between rows of one rate and wider rows of a lower rate.

    4 rows of width 2      a0 b0 | a1 b1 | a2 b2 | a3 b3
    patched by 2           a0 a1 b0 b1 | a2 a3 b2 b3          time inside the patch is the faster of the two indices

Source: MOSS-Audio-Tokenizer `PatchedPretransform`, here on rows instead of channels.
"""

from torch import Tensor, nn


class Patch(nn.Module):
    """[B, S, D] -> [B, S / patch_size, D * patch_size]."""

    def __init__(self, patch_size: int):
        super().__init__()
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, width = x.shape
        x = x.reshape(batch, rows // self.patch_size, self.patch_size, width).transpose(2, 3)
        return x.reshape(batch, rows // self.patch_size, width * self.patch_size)


class Unpatch(nn.Module):
    """[B, S, D] -> [B, S * patch_size, D / patch_size]; undoes `Patch`."""

    def __init__(self, patch_size: int):
        super().__init__()
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, width = x.shape
        x = x.reshape(batch, rows, width // self.patch_size, self.patch_size).transpose(2, 3)
        return x.reshape(batch, rows * self.patch_size, width // self.patch_size)
