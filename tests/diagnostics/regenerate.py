"""Write the golden report of every wrong spec in this folder: `python tests/diagnostics/regenerate.py`. Read the diff.

A spec may start with `# arguments: key=value …`, which are laid over it.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from sora_spec.language.loading import check
from sora_spec.language.report import render_full
from sora_spec.language.source import load_document

FOLDER = Path(__file__).parent


def report_of(path: Path) -> str:
    """The full report, with the file named as seen from this folder."""
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    overrides = shlex.split(first.removeprefix("# arguments:")) if first.startswith("# arguments:") else []
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        diagnostics = check(load_document(path.name, overrides)).diagnostics
    finally:
        os.chdir(before)
    return render_full(diagnostics) + "\n"


if __name__ == "__main__":
    for spec in sorted(FOLDER.glob("*.yaml")):
        spec.with_suffix(".expected.txt").write_text(report_of(spec), encoding="utf-8")
        print(spec.name)
