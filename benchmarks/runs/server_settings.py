"""Settings of a server by name: arguments beyond those that all servers of one comparison have."""

PLAIN = "plain"  # the text model underneath on stock SGLang, which has none
_FP8 = "--quantization fp8 --kv-cache-dtype fp8_e4m3"
_MANY = "--max-running-requests 256 --codec-slots 293 --cuda-graph-max-bs-decode 256"
_FUSED = "--decoding-layers fused"
_FULL = "--cuda-graph-backend-prefill full"
SETTINGS = {
    "default": "",
    "running-128": "--max-running-requests 128",
    # As many slots as there were on 80 GB before every stream of 128 requests had one.
    "slots-100": "--codec-slots 100 --max-running-requests 128",
    "yield-48": "--yield-above 48",
    "yield-96": "--yield-above 96",
    "eager-prefill": "--disable-prefill-cuda-graph",
    "encoder-ieee": "--codec-encoder-precision ieee",
    "interval-1": "--prefill-decode-interval 1",
    "interval-4": "--prefill-decode-interval 4",
    "many": _MANY,
    "fused": _FUSED,
    "many-fused": f"{_MANY} {_FUSED}",
    "many-full": f"{_MANY} {_FULL}",
    "many-fused-full": f"{_MANY} {_FUSED} {_FULL}",
    "yield-96-of-256": f"--yield-above 96 {_MANY}",
    "flashinfer": "--attention-backend flashinfer",
    "triton": "--attention-backend triton",
    "page-64": "--page-size 64",
    "fp8": "--quantization fp8",
    "fp8-kv8": _FP8,
    "fp8-kv8-many": f"{_FP8} {_MANY}",
    "fp8-kv8-many-fused": f"{_FP8} {_MANY} {_FUSED}",
    "fp8-kv8-many-full": f"{_FP8} {_MANY} {_FULL}",
    "fp8-kv8-many-fused-full": f"{_FP8} {_MANY} {_FUSED} {_FULL}",
    "fp8-kv8-flashinfer": f"{_FP8} --attention-backend flashinfer",
    "fp8-kv8-triton": f"{_FP8} --attention-backend triton",
    "fp8-kv8-yield-96-of-256": f"{_FP8} --yield-above 96 {_MANY}",
}
EVERY = ("--max-queued-speech", "4096")  # a load that is too large is to be measured, not refused
