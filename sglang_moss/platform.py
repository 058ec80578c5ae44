"""An SGLang platform for machines without a GPU: the engine as it is, on torch's own CPU operators.

SGLang ships a CPU backend of its own that needs extra kernels and certain processors; this one needs neither. It offers
itself only where no accelerator is found, so installing the package changes nothing elsewhere.
"""

import os
from typing import Any

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform

_MAX_TOTAL_TOKENS = 65_536  # rows of KV cache; the real pool on a GPU is sized by its memory


def activate() -> str | None:
    """Entry point of SGLang's platform group: the class to use, or None where there is an accelerator."""
    accelerated = torch.cuda.is_available() or (hasattr(torch, "xpu") and torch.xpu.is_available())
    if accelerated or os.environ.get("SGLANG_USE_CPU_ENGINE") == "1":
        return None
    return f"{__name__}:NativeCpuPlatform"


class NativeCpuPlatform(CpuDeviceMixin, SRTPlatform):
    """CPU, float32, torch's attention, SGLang's own memory pools, scheduler and overlap schedule."""

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"

    def get_device(self, local_rank: int | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """SGLang asks without a rank for the name of the default device, and with one for the device."""
        return "cpu" if local_rank is None else torch.device("cpu")

    def get_dispatch_key_name(self) -> str:
        return "native"

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_torch_profiler_activity_str(self) -> str:
        return "CPU"

    def get_torch_profiler_activity(self) -> torch.profiler.ProfilerActivity:
        return torch.profiler.ProfilerActivity.CPU

    def is_pin_memory_available(self, device: Any = None) -> bool:  # noqa: ARG002
        return False

    def apply_server_args_defaults(self, server_args: Any) -> None:
        """Fill what the user left open; `attention_backend` is set by SGLang before, to one that needs AMX."""
        server_args.attention_backend = "torch_native"
        server_args.disable_cuda_graph = True
        server_args.disable_custom_all_reduce = True
        server_args.sleep_on_idle = True
        if server_args.dtype == "auto":
            server_args.dtype = "float32"
        if server_args.max_total_tokens is None:
            server_args.max_total_tokens = _MAX_TOTAL_TOKENS
