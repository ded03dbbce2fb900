"""Where the installed program begins: an interrupt while its modules are still loaded ends it with words, too."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Load the command line and run it; it exits with its own code."""
    try:
        from .main import main as run

        run()
    except KeyboardInterrupt:  # before the command line could take it, or once more while it left
        sys.stderr.flush()
        os.write(2, b"interrupted: nothing half-written is left\n")
        os._exit(INTERRUPTED)
