"""How long `sora-spec tui` takes until the verdict is on the screen, against importing Textual's app alone.

    python benchmarks/tui_start.py [SPEC] [--runs 7]

A real process in a pseudo-terminal of 120 × 32; the clock stops when the words of the verdict have been written to it.
Byte code is cached in a temporary folder, as pip does at installation.
Goal: at most 2.5 times `python -c "import textual.app"`. Medians of runs taken in turn.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

VERDICT = re.compile(rb"YES, it fits|TIGHT, it likely fits|NO, it does not fit")
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def until_verdict(spec: str, environment: dict[str, str]) -> float:
    """Seconds from the start of the process to the verdict on its screen."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 32, 120, 0, 0))
    command = [sys.executable, "-m", "sora_spec", "tui", spec]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen, found = b"", 0.0
    while time.perf_counter() - start < 30:
        if select.select([leader], [], [], 0.05)[0]:
            try:
                seen += os.read(leader, 65_536)
            except OSError:
                break
            if not found and VERDICT.search(_ESCAPES.sub(b"", seen)):
                found = time.perf_counter() - start
                os.write(leader, b"q")
        elif process.poll() is not None:
            break
    process.wait(timeout=10)
    os.close(leader)
    if not found:
        raise SystemExit(f"no verdict on the screen:\n{seen[-2000:].decode(errors='replace')}")
    return found


def imported(environment: dict[str, str]) -> float:
    """Seconds of the yardstick."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import textual.app"], check=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default="dit")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "sora-spec"
        state.mkdir()
        (state / "tui.json").write_text('{"greeted": true}')
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"XDG_STATE_HOME": folder, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment |= {"LC_ALL": "C.UTF-8", "PYTHONPYCACHEPREFIX": str(Path(folder) / "bytecode")}
        starts, imports = list[float](), list[float]()
        for _ in range(arguments.runs + 1):
            starts.append(until_verdict(arguments.spec, environment))
            imports.append(imported(environment))
    start, yardstick = statistics.median(starts[1:]), statistics.median(imports[1:])
    print(f"import textual.app      {1000 * yardstick:6.0f} ms")
    print(f"verdict on the screen   {1000 * start:6.0f} ms, {start / yardstick:.2f} times as long (goal: at most 2.5)")


if __name__ == "__main__":
    main()
