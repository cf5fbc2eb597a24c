"""`python -m sora_spec` and the command `sora-spec`."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. Ctrl-C ends it without a traceback from the first import to the last thread."""
    try:
        from sora_spec.cli.main import run

        run()
    except KeyboardInterrupt:  # before the command line listens, or after
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would print a traceback while it shuts down


if __name__ == "__main__":
    main()
