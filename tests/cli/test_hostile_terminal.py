"""A sample of the hostile trial of the terminal: `python -m tests.hostile terminal` runs all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.case import Case
from tests.hostile.terminal import cases

ALL = list(cases())
HERE = [case for case in ALL if not case.name.startswith(("SIG", "{}", "ulimit", "mk", "ln", "touch", "PY", "LC"))]
SAMPLE = [case for case in HERE[::9] if "torch" not in case.name and "generate" not in case.name]


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_hostile_terminal(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert case.run(tmp_path) is None


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in ALL}) >= 40
