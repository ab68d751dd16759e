"""Where the program begins; imports nothing before it has to."""

import gc
import signal
import sys

GARBAGE = 200_000  # objects to look through for unused cycles; at Python's 700, a tenth of the start goes into it


def main() -> None:
    """Run the command line. Ctrl-C while it is still being loaded just ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(GARBAGE)
    try:
        from .app import run
    except ImportError as error:
        sys.exit(f"mistral-mlx: error: the installation is incomplete ({error}); install mistral-mlx again")
    run()
