"""Entry point of SGLang's plugin group: registers our model and installs our hooks, or stops the process.

SGLang loads plugins in the process of the command line, which becomes the HTTP process, and in every scheduler process.
It logs a plugin's exception and serves on without it, so every failure here becomes `SystemExit`, which it does not
catch.
"""

import multiprocessing
import os
import sys
import warnings
from importlib.metadata import version
from typing import Any

from sglang_moss import TESTED_SGLANG, early_checks, socket_folder


def register() -> None:
    """Make SGLang able to serve MOSS-TTSD.

    Raises:
        SystemExit: the command line cannot work (`early_checks`); or a registration or a hook failed: the message says
            which, and for which SGLang this was tested.
    """
    if multiprocessing.parent_process() is None and early_checks.begin(sys.argv[1:]):
        socket_folder.enter()  # before anything that makes files there is imported
        _silence()
    try:
        from sglang_moss.hooking import install
        from sglang_moss.hooks import HOOKS

        _register_with_sglang()
        install(HOOKS)
    except Exception as error:
        raise SystemExit(
            f"sglang_moss: cannot register with SGLang {version('sglang')} (tested with {TESTED_SGLANG}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _silence() -> None:
    rules = [os.environ.get("PYTHONWARNINGS", "")]
    for message in ("Only CUDA", "Triton is not supported"):
        warnings.filterwarnings("ignore", message, UserWarning)
        rules.append(f"ignore:{message}:UserWarning")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, rules))  # of the processes that this one starts


def _register_with_sglang() -> None:
    """SGLang's public registries, from the configuration to the warm-up."""
    from sglang.srt.arg_groups.resolution_hooks import register_resolution_hook
    from sglang.srt.entrypoints.engine import Engine
    from sglang.srt.entrypoints.warmup import warmup
    from sglang.srt.layers.sampler import register_sampler_backend
    from sglang.srt.managers.multimodal_processor import PROCESSOR_MAPPING
    from sglang.srt.mem_cache.registry import register_radix_cache_backend
    from sglang.srt.models.registry import ModelRegistry
    from sglang.srt.multimodal.customized_mm_processor_utils import register_customized_processor
    from transformers import AutoConfig

    from sglang_moss.attention import backend as attention
    from sglang_moss.checkpoint import MODEL_TYPE
    from sglang_moss.config import MossTTSDConfig
    from sglang_moss.models.moss_ttsd import EntryClass
    from sglang_moss.prefix_cache import build_cache
    from sglang_moss.processor import MossTTSDProcessor, TokenizerAsProcessor
    from sglang_moss.row_sampler import build_sampler
    from sglang_moss.server_args import WARMUP, MossServerArgs, bound_kv_cache
    from sglang_moss.supported_args import RADIX_CACHE_BACKEND
    from sglang_moss.warmup import speak_once

    AutoConfig.register(MODEL_TYPE, MossTTSDConfig)
    customized: Any = register_customized_processor  # annotated for SGLang's own classes; needs `from_pretrained` only
    customized(TokenizerAsProcessor)(MossTTSDConfig)
    ModelRegistry.register("sglang_moss.models", strict=True)
    PROCESSOR_MAPPING.update(dict.fromkeys(EntryClass, MossTTSDProcessor))
    register_radix_cache_backend(RADIX_CACHE_BACKEND, build_cache)
    # SGLang picks one of its own two names by platform; under both, ours steps aside for any other model.
    for backend in ("flashinfer", "pytorch"):
        register_sampler_backend(backend, build_sampler)
    attention.register()
    engine: Any = Engine  # its field is annotated as an instance, and used as a class
    engine.server_args_class = MossServerArgs
    register_resolution_hook("handle_gpu_memory_settings")(bound_kv_cache)
    warmup(WARMUP)(speak_once)
