"""Triton kernels; each stands beside the plain torch that it must equal, which is named in its docstring."""
