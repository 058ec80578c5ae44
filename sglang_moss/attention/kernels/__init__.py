"""Triton kernels of `sglang_moss.attention`."""
