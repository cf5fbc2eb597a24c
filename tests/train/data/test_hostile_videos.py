"""The hostile videos of `python -m tests.hostile videos`: right frames, or a refusal by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile import videos
from tests.hostile.case import Case


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # silenced when trained, restored by pytest
@pytest.mark.parametrize(
    "case", [case for case in videos.cases() if not case.name.startswith("mutants")], ids=lambda case: case.name
)
def test_a_hostile_video_is_read_rightly_or_refused(case: Case, tmp_path: Path) -> None:
    assert case.run(tmp_path) is None
