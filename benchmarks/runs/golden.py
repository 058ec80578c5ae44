"""The tests' golden data, which lies beside the sources and in no wheel."""

import argparse
from pathlib import Path

_IN_A_CHECKOUT = "tests/golden"


def add_golden_argument(parser: argparse.ArgumentParser) -> None:
    """`--golden DIR`, a folder that is there; by default that of the checkout in which a program is started."""
    parser.add_argument(
        "--golden",
        type=_folder,
        default=_IN_A_CHECKOUT,  # a string, so that it is looked for as what is given is
        metavar="DIR",
        help="the tests' golden data (%(default)s)",
    )


def _folder(path: str) -> Path:
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"there is no {path}: start this in a checkout, or say where its data is")
    return Path(path)
