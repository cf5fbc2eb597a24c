"""`python -m tests.reference [--official FOLDER] [--write]`: the parity table.

FOLDER holds checkouts of the official programs under the names `DiT`, `SiT`, `Latte` and `Open-Sora` (tag v1.0.0);
those that are not there are left out. `--write` puts the table into docs/parity.md. Exit code 1 where something differs
that should not.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.reference.images import dit_rows, sit_rows
from tests.reference.packages import diffusers_rows, straight_rows
from tests.reference.row import Row
from tests.reference.videos import latte_rows, stdit_rows

PROGRAMS = {"DiT": dit_rows, "SiT": sit_rows, "Latte": latte_rows, "Open-Sora": stdit_rows}
PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def rows(official: Path | None) -> Iterator[Row]:
    """Every comparison that can be made here."""
    with torch.no_grad():
        for name, compare in PROGRAMS.items():
            if official is not None and (official / name).is_dir():
                yield from compare(official / name)
        yield from straight_rows()
        yield from diffusers_rows()


def table(found: list[Row]) -> str:
    """In Markdown."""
    lines = ["| system | compared with | what | relative L2 | |", "|---|---|---|---|---|"]
    for row in found:
        error = "equal" if row.error == 0 else f"{row.error:.1e}"
        verdict = "same" if row.error <= row.limit else "**differs**"
        verdict = "differs by design" if row.limit == math.inf else verdict
        lines.append(f"| {row.system} | {row.source} | {row.compared} | {error} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.reference")
    parser.add_argument("--official", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    found = list(rows(asked.official))
    text = table(found)
    print(text, end="")
    if asked.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2])
    return 1 if any(row.error > row.limit for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
