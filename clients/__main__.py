"""`python -m sglang_moss.clients`: the command line without an installed script."""

from .cli import app

if __name__ == "__main__":
    app(prog_name="moss-ttsd")
