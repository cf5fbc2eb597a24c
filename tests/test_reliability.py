"""What docs/reliability.md says is tried is tried; a sample of damage to run folders runs here."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.hostile.__main__ import PARTS
from tests.hostile.case import Case
from tests.hostile.disks import cases as of_disks

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
FLOORS = {"specs": 500, "weights": 100, "bundles": 60, "lists": 60, "videos": 60, "kills": 26}
ROW = re.compile(r"^\| `(\w+)` \| ([\d,]+) \|", re.MULTILINE)
DAMAGED = [case for case in of_disks() if case.name.endswith(("all checkpoints", ": optimizer.safetensors"))][::3]


def test_the_page_names_every_part() -> None:
    assert tuple(part for part, _ in ROW.findall(PAGE.read_text())) == PARTS


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.filterwarnings("ignore")
def test_there_are_as_many_cases_as_the_page_says(part: str) -> None:
    said = {name: int(count.replace(",", "")) for name, count in ROW.findall(PAGE.read_text())}
    names = [case.name for case in importlib.import_module(f"tests.hostile.{part}").cases()]
    assert len(names) >= said[part] - (part == "disks") * 40  # those that mount a disk need root
    assert said[part] >= FLOORS.get(part, 1)


@pytest.mark.parametrize("case", DAMAGED, ids=lambda case: case.name)
def test_damage_to_a_run_folder(case: Case, tmp_path: Path) -> None:
    assert case.run(tmp_path) is None
