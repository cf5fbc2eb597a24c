"""Plans over devices and settings, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.language.overrides import apply_override
from sora_spec.language.source import Document
from sora_spec.plan.amounts import GIB, duration, whole
from sora_spec.plan.axes.axis import SAID_BY
from sora_spec.plan.devices.hardware import Device, device_names, find_device
from sora_spec.plan.job import Question, planned_job
from sora_spec.plan.layout import NOTHING, checked_for
from sora_spec.plan.planner import Plan, make_plan
from sora_spec.plan.search.listing import listed

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

MOST_ROWS = 20_000


@dataclass(frozen=True)
class Over:
    """A value of the spec and what it takes in turn."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One plan of a sweep, or why there is none."""

    device: str
    count: int | None
    settings: tuple[str, ...]
    plan: Plan | None
    problem: str


def parse_axes(texts: Sequence[str]) -> list[Over]:
    """`train.batch=8,16` → an axis. Raises UserError for another form."""
    axes: list[Over] = []
    for text in texts:
        path, equals, values = text.partition("=")
        if not equals or not path or not values:
            raise UserError(f"--over {text} is not KEY=A,B,…", "for example --over train.batch=8,16,32")
        axes.append(Over(path, tuple(dict.fromkeys(listed(f"--over {path}", values)))))
    return axes


def sweep(
    document: Document,
    question: Question,
    devices: Sequence[str],
    counts: Sequence[int | None],
    axes: Sequence[Over],
) -> list[Row]:
    """Every combination, settings outermost: those share their graphs. Without names, every row on its spec's device.

    Raises:
        UserError: a device that is not in the table, two values for one thing, or too many combinations.
    """
    return list(sweep_rows(document, question, swept_devices(devices, question.hardware or None), counts, axes))


def swept_devices(names: Sequence[str], hardware: str | None = None) -> list[Device]:
    """The devices of those names; of the whole table where the only name is `all`.

    Raises:
        UserError: a device that is not in the table.
    """
    every = device_names(hardware) if list(names) == ["all"] else list(names)
    return list({device.name: device for device in (find_device(name, hardware) for name in every)}.values())


def sweep_size(devices: Sequence[Device], counts: Sequence[int | None], axes: Sequence[Over]) -> int:
    """Number of rows.

    Raises:
        UserError: too many, or two values for one thing.
    """
    _check_apart(devices, counts, axes)
    size = prod(len(axis.values) for axis in axes) * max(1, len(devices)) * len(counts)
    if size > MOST_ROWS:
        raise UserError(f"{size:,} combinations are more than {MOST_ROWS:,}", "name fewer devices or values")
    return size


def _check_apart(devices: Sequence[Device], counts: Sequence[int | None], axes: Sequence[Over]) -> None:
    """Every value that a row is labelled with has one source."""
    for number, axis in enumerate(axes):
        for other in axes[:number]:
            if f"{other.path}.".startswith(f"{axis.path}."):  # the later one would stand in place of the earlier
                raise UserError(f"{other.path} and {axis.path} are swept at once", "give all its values in one axis")
        if axis.path == SAID_BY["count"] and list(counts) != [None]:
            raise UserError("the number of devices is given, and swept over hardware.count", "leave one of the two out")
        if axis.path == SAID_BY["gpu"] and devices:
            raise UserError("devices are given, and swept over hardware.gpu", "leave one of the two out")


def sweep_rows(
    document: Document,
    question: Question,
    devices: Sequence[Device],
    counts: Sequence[int | None],
    axes: Sequence[Over],
) -> Iterator[Row]:
    """The rows of `sweep` one by one, as they are planned. Without devices, every row on its spec's own.

    Raises:
        UserError: two values for one thing, or too many combinations.
    """
    sweep_size(devices, counts, axes)
    for settings in product(*[[f"{axis.path}={value}" for value in axis.values] for axis in axes]):
        spec, typed, problem = _spec(document, settings, counts)
        for count, device in product(counts, devices or (None,)):
            name = device.name if device is not None else "" if spec is None else spec.hardware.gpu
            if spec is None:
                yield Row(name, count, settings, None, problem)
                continue
            try:
                here = device or find_device(spec.hardware.gpu, question.hardware or None)
                plan = make_plan(planned_job(spec, here, replace(question, count=count), typed))
                yield Row(plan.device.name, plan.job.count, settings, plan, "")
            except UserError as error:
                yield Row(name, count, settings, None, error.message)


def _spec(
    document: Document, settings: Sequence[str], counts: Sequence[int | None]
) -> tuple[Spec | None, frozenset[str], str]:
    """The spec with settings laid over it and what was typed of it, or the first thing wrong with it."""
    if document.root is None:
        return None, NOTHING, next(d.message for d in document.problems)
    root = deepcopy(document.root)
    problems = list(document.problems)
    for order, setting in enumerate(settings):
        problems += apply_override(root, setting, order)
    laid = Document(document.text, root, problems)
    checked, typed = checked_for(laid, next((count for count in counts if count is not None), None))
    if checked.ok:
        return checked.spec(), typed, ""
    return None, typed, next(d.message for d in checked.diagnostics if d.severity == "error")


def render(rows: Sequence[Row], form: str) -> str:
    """The rows as `table`, `csv` or `json`."""
    if form == "json":
        return json.dumps([row_values(row) for row in rows], indent=2)
    if form == "csv":
        return _csv(rows)
    return _table(rows)


def row_values(row: Row) -> dict[str, Any]:
    """A row as JSON values."""
    found: dict[str, Any] = {"gpu": row.device, "count": row.count, "settings": list(row.settings)}
    if row.plan is None:
        return found | {"fits": None, "problem": row.problem}
    times = row.plan.times
    return found | {
        "count": row.plan.job.count,
        "fits": row.plan.fits,
        "verdict": row.plan.verdict,
        "lacks": [lack.path for lack in row.plan.lacks],
        "allocated_bytes": whole(row.plan.allocated),
        "device_bytes": whole(row.plan.needed),
        "step_seconds": times.step.seconds._asdict(),
        "total_seconds": times.total_seconds._asdict(),
        "gpu_hours": times.gpu_hours._asdict(),
        "cost": None if times.cost is None else times.cost._asdict(),
    }


_COLUMNS = ("gpu", "count", "settings", "verdict", "device_bytes", "step_seconds", "total_seconds", "gpu_hours", "cost")


def _csv(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(_COLUMNS)
    for row in rows:
        values = row_values(row)
        said = row.problem if row.plan is None else row.plan.standing
        cells = [row.device, values["count"], " ".join(row.settings), said]
        table.writerow(
            cells + [f"{each['likely']:.10g}" if (each := values.get(name)) else "" for name in _COLUMNS[4:]]
        )
    return stream.getvalue().removesuffix("\n")


def _table(rows: Sequence[Row]) -> str:
    lines = [("gpu", "n", "settings", "fits", "GiB", "a step", "in all", "cost")]
    for row in rows:
        settings = " ".join(row.settings) or "-"
        if row.plan is None:
            lines.append((row.device, str(row.count or ""), settings, row.problem, "", "", "", ""))
            continue
        plan, times = row.plan, row.plan.times
        cost = "-" if times.cost is None else f"${times.cost.likely:,.2f}"
        lines.append(
            (
                *(row.device, str(plan.job.count), settings, plan.standing, f"{plan.needed.likely / GIB:.1f}"),
                *(duration(times.step.seconds.likely), duration(times.total_seconds.likely), cost),
            )
        )
    planned = [line for line, row in zip(lines, [None, *rows], strict=True) if row is None or row.plan is not None]
    widths = [max(len(line[i]) for line in planned) for i in range(8)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
