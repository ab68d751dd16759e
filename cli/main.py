"""Where the program begins; imports nothing before it has to."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is still being loaded just ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .app import run

    run()
