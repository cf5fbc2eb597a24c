"""The best row under a budget against a plain search over the values that `--sweep` prints."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from sora_spec.errors import UserError
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document
from sora_spec.plan.job import Question
from sora_spec.plan.search.budget import Budget, best, parse_budget
from sora_spec.plan.search.sweep import Row, parse_axes, row_values, sweep, sweep_rows, swept_devices

AXES = ["train.batch=64,256", "train.precision=fp32,bf16"]
GIB = 2**30


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return sweep(load_document(find_spec_file("dit")), Question(), ["all"], [1, 8], parse_axes(AXES))


@pytest.fixture(scope="module")
def printed() -> list[dict[str, Any]]:
    """What the command prints for the same sweep."""
    command = [sys.executable, "-m", "sora_spec", "plan", "dit", "--sweep", "--gpu", "all", "--count", "1,8"]
    command += ["--over", AXES[0], "--over", AXES[1], "--format", "json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def test_rows_one_by_one_are_those_of_the_command(rows: list[Row], printed: list[dict[str, Any]]) -> None:
    document = load_document(find_spec_file("dit"))
    single = list(sweep_rows(document, Question(), swept_devices(["all"]), [1, 8], parse_axes(AXES)))
    assert [row_values(row) for row in single] == printed
    assert [row_values(row) for row in rows] == printed


def gpus_that_fit(printed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in printed if row["fits"] and row["gpu"] != "cpu"]


@pytest.mark.parametrize("dollars", [50, 200, 500, 1000, 5000, 1e6])
def test_under_dollars_the_fastest(rows: list[Row], printed: list[dict[str, Any]], dollars: float) -> None:
    within = [row for row in gpus_that_fit(printed) if row["cost"] and row["cost"]["likely"] <= dollars]
    choice = best(rows, Budget("dollars", dollars))
    if not within:
        assert choice.row is None
        assert "none of the" in choice.why
        return
    assert choice.place is not None
    fastest = min(row["total_seconds"]["likely"] for row in within)
    assert printed[choice.place]["total_seconds"]["likely"] == fastest
    assert rows[choice.place] is choice.row
    assert f"the fastest of {len(within)} that fit" in choice.why


@pytest.mark.parametrize(("kind", "limit"), [("hours", 24.0), ("hours", 240.0), ("memory", 16 * GIB), ("memory", None)])
def test_under_hours_or_memory_the_cheapest(
    rows: list[Row], printed: list[dict[str, Any]], kind: Any, limit: float | None
) -> None:
    most = math.inf if limit is None else limit * (3600 if kind == "hours" else 1)
    key = "total_seconds" if kind == "hours" else "device_bytes"
    # Bytes are printed as whole numbers.
    within = [row for row in gpus_that_fit(printed) if row[key]["likely"] <= most]
    choice = best(rows, Budget(kind, limit))
    assert choice.place is not None
    cheapest = min(row["cost"]["likely"] for row in within if row["cost"])
    assert printed[choice.place]["cost"]["likely"] == cheapest


def test_what_is_out_of_reach_says_what_is_the_least(rows: list[Row], printed: list[dict[str, Any]]) -> None:
    least = min(row["cost"]["likely"] for row in gpus_that_fit(printed) if row["cost"])
    assert best(rows, Budget("dollars", least / 2)).why.endswith(f"the least is ${least:,.2f}")
    assert best([row for row in rows if row.plan and not row.plan.fits], Budget("hours", 1)).row is None
    assert best([], Budget("hours", 1)).why == "there is nothing to choose from"


def test_the_upper_end_and_differing_batches_are_said(rows: list[Row]) -> None:
    choice = best(rows, Budget("dollars", None))
    assert choice.row is not None
    assert choice.row.plan is not None
    cost = choice.row.plan.times.cost
    assert cost is not None
    said = best(rows, Budget("hours", choice.row.plan.times.total_seconds.likely / 3600 * 1.0001)).why
    assert "over the budget" in said
    assert "rows differ in clips per step" in said


def test_a_cpu_is_only_chosen_from_cpus(rows: list[Row]) -> None:
    cpus = [row for row in rows if row.device == "cpu"]
    assert best(rows, Budget("dollars", None)).row not in cpus
    assert any(row.plan and row.plan.fits for row in cpus) == (best(cpus, Budget("dollars", None)).row in cpus)


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("$500", "dollars", 500),
        ("500", "dollars", 500),
        (" $ 1,500.50 ", "dollars", 1500.5),
        ("2k", "dollars", 2000),
        ("2k usd", "dollars", 2000),
        ("72 h", "hours", 72),
        ("90min", "hours", 1.5),
        ("3 days", "hours", 72),
        ("1 WEEK", "hours", 168),
        ("24 GiB", "memory", 24 * GIB),
        ("0.5g", "memory", GIB / 2),
        ("", "dollars", None),
        ("  ", "dollars", None),
    ],
)
def test_budgets_as_people_write_them(text: str, kind: str, limit: float | None) -> None:
    assert parse_budget(text) == Budget(kind, limit)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("text", ["cheap", "$5 h", "5 parsecs", "-3", "5 h 3", "$", "1e3", "nan h"])
def test_other_words_are_user_errors(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budget(text)
    assert caught.value.hint
