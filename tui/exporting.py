"""A plan as JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from sora_spec.plan.question import Answer, answer_values
from sora_spec.plan.show.snapshot import Snapshot, snapshot_of
from sora_spec.tui.numbers import gib, percent, shown, span
from sora_spec.tui.signs import SIGNS


def exported(form: str, answer: Answer, command: str) -> str:
    """The plan in a form: `json`, `csv` or `md`."""
    values = answer_values(answer)
    assert values is not None
    if form == "json":
        return json.dumps(values, indent=2) + "\n"
    return as_csv(values) if form == "csv" else as_markdown(snapshot_of(answer), values, command)


def as_csv(values: dict[str, Any]) -> str:
    """Every term of the phase that needs most, in bytes."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    columns = ("name", "low_bytes", "bytes", "high_bytes", "tag", "level", "path", "line")
    table.writerow(("spec", "mode", "gpu", "count", "verdict", "phase", *columns))
    head = [values[key] for key in ("name", "mode", "gpu", "count", "verdict")] + [values["memory"]["peak_phase"]]
    for term in values["memory"]["terms"]:
        table.writerow((*head, *(term[column] for column in columns)))
    return stream.getvalue()


def as_markdown(snapshot: Snapshot, values: dict[str, Any], command: str) -> str:
    """The plan as a page."""
    plan, needed = snapshot.plan, snapshot.needed
    assert plan is not None
    assert needed is not None
    sign = SIGNS[snapshot.standing]
    lines = [
        f"# {plan.job.spec.name}: {plan.job.mode} on {plan.job.count} × {plan.job.device.title}",
        "",
        f"**{sign.mark} {sign.word}**: {gib(needed.likely)} of {gib(snapshot.capacity)} GiB "
        f"({gib(needed.low)} – {gib(needed.high)}).",
        "",
        f"    {command}",
        "",
        *_table(("memory", "GiB", "share", "certainty", "from"), _memory(snapshot)),
        "",
        *_table(
            ("time and cost", "likely", "range"),
            [
                (row.name, shown(row.value.likely, row.unit), span(row.value, row.unit))
                for row in snapshot.times
                if row.value
            ],
        ),
    ]
    if values["fixes"]:
        fixes = [
            (", ".join(f["changes"]), " ".join(f["overrides"]), f"× {f['time_factor']:.2f}") for f in values["fixes"]
        ]
        lines += ["", *_table(("what would make it fit", "arguments", "time"), fixes)]
    for title, entries in (("Assumed", values["assumptions"]), ("Not counted", values["not_counted"])):
        lines += ["", f"## {title}", "", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"


def _memory(snapshot: Snapshot) -> list[tuple[str, ...]]:
    rows = list[tuple[str, ...]]()
    for part in snapshot.rows:
        for row in (part, *part.children):
            if row.bytes is None or row.share < 0.005:
                continue
            name = f"**{row.name}**" if row is part else row.name
            place = row.path + (f":{row.line}" if row.line else "")
            rows.append((name, gib(row.bytes.likely), percent(row.share), row.tag or "", place))
    return rows


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]
