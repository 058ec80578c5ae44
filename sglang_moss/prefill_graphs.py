"""Where SGLang's full graphs of prefill may be asked for.

Breakable graphs, the default, leave the attention of every layer to be launched from the host, in between; full ones
hold it, in buffers that FlashAttention 3 alone of SGLang's backends keeps for them.
"""

from typing import Any

from sglang_moss.attention.flash_attention_3 import why_not_taken

FULL = "full"
BREAKABLE = "breakable"


def why_not_full(server_args: Any, on_hopper: bool) -> str | None:
    """Why full graphs do not go with these arguments; None: they do.

    Args:
        server_args: as they were given.
        on_hopper: whether there is a GPU for which SGLang takes FlashAttention 3 by itself.
    """
    if need := why_not_taken(server_args, on_hopper):
        return f"full graphs need {need}"
    if server_args.page_size not in (None, 1):
        return "full graphs have not been tried with pages of several rows"
    if server_args.tp_size * server_args.dp_size > 1:
        return "full graphs have not been tried on several GPUs"
    return None
