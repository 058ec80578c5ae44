"""One row of every running request: slot tensors, the draw in plain torch, and its kernels."""
