"""`python -m tests.hostile [PART…]`: hostile input of every kind, each with the answer that is right.

Prints a line per part and every failure; exit code 1 if there is one. The counts stand in docs/reliability.md.
"""

from __future__ import annotations

import gc
import importlib
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.hostile.case import Case

PARTS = ("specs", "weights", "bundles", "lists", "videos", "kills", "disks", "terminal")
"""Modules of this folder; each has `cases()`, an iterable of `Case`."""


def run_case(case: Case) -> str | None:
    """What went wrong, or None."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    gc.enable()  # verbs of short processes turn it off, and decoders' threads would stay for ever
    try:
        return case.run(folder)
    except Exception:
        return "the case itself failed: " + traceback.format_exc(limit=3)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(asked: list[str]) -> int:
    """Run the parts asked for, or all."""
    failures = 0
    for part in asked or PARTS:
        begin, count, failed = time.perf_counter(), 0, 0
        for case in importlib.import_module(f"tests.hostile.{part}").cases():
            count += 1
            wrong = run_case(case)
            if wrong is not None:
                failed += 1
                print(f"FAILED {part}: {case.name}: {wrong}", flush=True)
        print(f"{part}: {count} cases, {failed} failed, {time.perf_counter() - begin:.0f} s", flush=True)
        failures += failed
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
