"""A sample of the hostile trial's checkpoints; `python -m tests.hostile weights` runs all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.case import Case
from tests.hostile.weight_archives import archives
from tests.hostile.weight_contents import names, nests
from tests.hostile.weights import cases

SAMPLE = [*archives()][:2] + [*nests()][:1] + [*names()][:3] + [*cases()][5::11]


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_the_right_tensors_or_the_right_reason(case: Case, tmp_path: Path) -> None:
    assert case.run(tmp_path) is None
