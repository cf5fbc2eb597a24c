"""How long `sora-spec validate specs/dit.yaml` takes as a whole process, against importing its dependencies.

    python benchmarks/validate_startup.py [--runs 21] [--no-bytecode]

Byte code is cached in a temporary folder, as pip does at installation; `--no-bytecode` compiles sora-spec each time.

Both commands run in turn, so that a busy machine slows both alike. Prints the medians of the wall time and of the
processor time, and their ratios. The goal is a ratio of at most 1.5.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = Path(__file__).parents[1] / "specs" / "dit.yaml"
COMMANDS = {
    "imports": [sys.executable, "-c", "import pydantic, typer, rich, ruamel.yaml"],
    "validate": [sys.executable, "-m", "sora_spec", "validate", str(SPEC)],
}


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and processor time of one run, in milliseconds."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    wall, after = time.perf_counter() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return wall * 1000, processor * 1000


def environment(cache: str | None) -> dict[str, str]:
    """This environment with byte code cached in a folder, or not written at all."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, **({"PYTHONPYCACHEPREFIX": cache} if cache else {"PYTHONDONTWRITEBYTECODE": "1"})}


def compare(runs: int, variables: dict[str, str]) -> None:
    """Run both commands in turn and print the medians."""
    for command in COMMANDS.values():
        measure(command, variables)  # writes the byte code, fills the disk cache
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, command in COMMANDS.items():
            times[name].append(measure(command, variables))
    for index, what in enumerate(("wall", "processor")):
        medians = {name: statistics.median(run[index] for run in found) for name, found in times.items()}
        base, ours = medians["imports"], medians["validate"]
        print(f"{what:<10} imports {base:6.0f} ms  validate {ours:6.0f} ms  ratio {ours / base:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--no-bytecode", action="store_true", help="compile sora-spec's own modules in every run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        compare(arguments.runs, environment(None if arguments.no_bytecode else cache))


if __name__ == "__main__":
    main()
