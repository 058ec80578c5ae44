"""The program `moss-ttsd`, and `serve`, its one command that is not in `sglang_moss.clients.cli`.

    moss-ttsd serve FUSED --port 30000        is  sglang serve FUSED --port 30000 --delay-pattern

but for what cannot work (a checkpoint that is none, a port in use, a folder that cannot be written), which it tells
within a tenth of a second. `sglang serve` has to import SGLang for some five seconds before it asks any plugin. So does
this, once it has looked; and it imports nothing of the other commands, which alone would take longer.
"""

import sys
from collections.abc import Sequence

from sglang_moss import early_checks
from sglang_moss.command_line import FLAG

_HELP = {"-h", "--help"}


def main() -> None:
    """Entry point of the console script."""
    words = sys.argv[1:]
    if words[:1] == ["serve"] and _HELP.isdisjoint(words):
        serve(words[1:])
        return
    from sglang_moss.clients.cli import app  # pyright: ignore[reportMissingImports]  # in this package once installed

    app(prog_name="moss-ttsd")


def serve(words: Sequence[str]) -> None:
    """Serve until the server ends.

    Args:
        words: arguments of `sglang serve`, of which the first may be the fused checkpoint.
    Raises:
        SystemExit: they cannot work, or the server has ended.
    """
    flag = () if FLAG in words else (FLAG,)
    argv = ["serve", *words, *flag]
    early_checks.begin(argv)  # what is not ours then, SGLang's parser refuses
    sys.argv = ["sglang", *argv]  # where SGLang and its plugins look
    from sglang.cli.main import main as sglang

    sglang()


if __name__ == "__main__":
    main()
