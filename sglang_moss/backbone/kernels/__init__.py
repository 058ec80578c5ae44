"""Triton kernels of `sglang_moss.backbone`."""
