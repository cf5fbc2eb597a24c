"""Official code as the oracle: `OFFICIAL=FOLDER make test-reference` (see docs/parity.md)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.reference
def test_everything_that_can_be_compared_is_the_same() -> None:
    from tests.reference.__main__ import rows

    folder = os.environ.get("OFFICIAL")
    found = list(rows(None if not folder else Path(folder)))
    assert len(found) >= 3
    assert [row for row in found if row.error > row.limit] == []
