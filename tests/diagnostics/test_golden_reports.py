"""Wrong specs and their reports. `python tests/diagnostics/regenerate.py` rewrites the reports; read the diff."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
SPECS = sorted(FOLDER.glob("*.yaml"))

_spec = importlib.util.spec_from_file_location("regenerate", FOLDER / "regenerate.py")
assert _spec is not None
assert _spec.loader is not None
regenerate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(regenerate)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_report_is_the_golden_one(path: Path) -> None:
    assert regenerate.report_of(path) == path.with_suffix(".expected.txt").read_text(encoding="utf-8")


def test_there_are_enough_and_none_is_left_over() -> None:
    assert len(SPECS) >= 80
    assert {path.stem for path in SPECS} == {path.name.removesuffix(".expected.txt") for path in FOLDER.glob("*.txt")}
