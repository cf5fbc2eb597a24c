"""A sample of the hostile specs: `python -m tests.hostile specs` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.case import Case
from tests.hostile.specs import cases

ALL = list(cases())
SAMPLE = [*ALL[::40], *(case for case in ALL if case.name.startswith(("text: ", "same spec: ")))]


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_hostile_spec(case: Case, tmp_path: Path) -> None:
    assert case.run(tmp_path) is None


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in ALL}) >= 500
