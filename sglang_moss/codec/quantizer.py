"""Residual quantizer: each codebook names the vector nearest to what the codebooks before it have left over.

    residual = input_proj(hidden)
    for each codebook:  code = nearest(in_proj(residual));  residual -= out_proj(codebook[code])
    decode:             output_proj(sum over codebooks of out_proj(codebook[code]))

Source: MOSS-Audio-Tokenizer `ResidualLFQ` and `LFQ`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from sglang_moss.codec.config import QuantizerShape


class Codebook(nn.Module):
    """One codebook's vectors with its projections from and to the residual's width."""

    def __init__(self, shape: QuantizerShape):
        super().__init__()
        self.in_proj = _projection(shape.rvq_dim, shape.codebook_dim)
        self.out_proj = _projection(shape.codebook_dim, shape.rvq_dim)
        self.codebook = nn.Embedding(shape.codebook_size, shape.codebook_dim, dtype=torch.float32)


class Quantizer(nn.Module):
    """Encoder rows to codes and codes to decoder rows. The tables are empty until `post_load`."""

    def __init__(self, shape: QuantizerShape):
        super().__init__()
        self.shape = shape
        self.input_proj = _projection(shape.input_dim, shape.rvq_dim)
        self.output_proj = _projection(shape.rvq_dim, shape.output_dim)
        self.quantizers = nn.ModuleList(Codebook(shape) for _ in range(shape.n_codebooks))

        n, size = shape.n_codebooks, shape.codebook_size
        self.decoded: Tensor  # [n_codebooks * codebook_size, rvq_dim] out_proj of every vector
        self.directions: Tensor  # [n_codebooks, codebook_size, codebook_dim] every vector at length 1
        self.offsets: Tensor  # [n_codebooks, codebook_size] half the squared length of `directions`: 1/2, or 0
        for name, size_of in {
            "decoded": (n * size, shape.rvq_dim),
            "directions": (n, size, shape.codebook_dim),
            "offsets": (n, size),
        }.items():
            self.register_buffer(name, torch.empty(size_of, dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def post_load(self) -> None:
        """Fill the tables from the weights, in place."""
        vectors = [book.codebook.weight for book in self._books()]
        torch.cat([book.out_proj(book.codebook.weight) for book in self._books()], out=self.decoded)
        self.directions.copy_(normalize(torch.stack(vectors), dim=-1))
        self.offsets.copy_(self.directions.square().sum(dim=-1) / 2)

    def encode(self, hidden: Tensor, n_codebooks: int | None = None) -> Tensor:
        """[B, T, input_dim] float32 -> [B, T, n] int64 with n = `n_codebooks` or all: fewer are a prefix."""
        residual = self.input_proj(hidden)
        codes = []
        for k, book in enumerate(self._books()[:n_codebooks]):
            direction = normalize(book.in_proj(residual), dim=-1)
            # Largest d . e - |e|^2 / 2 is smallest |d - e|^2: |d|^2 is the same for all.
            code = (direction @ self.directions[k].T - self.offsets[k]).argmax(dim=-1)
            residual = residual - self.decoded[k * self.shape.codebook_size + code]
            codes.append(code)
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """[B, T, n] int64, n <= n_codebooks -> [B, T, output_dim] float32. Codes out of range are clamped."""
        batch, frames, n = codes.shape
        # Padding may hold any number, and on a GPU one read out of bounds ends every stream.
        codes = codes.clamp(0, self.shape.codebook_size - 1)
        rows = codes + self.shape.codebook_size * torch.arange(n, device=codes.device)
        summed = embedding_bag(rows.reshape(batch * frames, n), self.decoded, mode="sum")
        return self.output_proj(summed).reshape(batch, frames, -1)

    def _books(self) -> list[Codebook]:
        return [book for book in self.quantizers if isinstance(book, Codebook)]


def _projection(n_in: int, n_out: int) -> nn.Module:
    """A 1x1 convolution of the checkpoint, which has one only between different widths."""
    return nn.Identity() if n_in == n_out else nn.Linear(n_in, n_out, dtype=torch.float32)
