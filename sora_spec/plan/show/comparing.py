"""Two specs side by side: the fields that differ, and what each costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.language.changes import flow
from sora_spec.plan.amounts import GIB, duration
from sora_spec.plan.devices.hardware import find_device
from sora_spec.plan.job import Mode, Question, planned_job
from sora_spec.plan.layout import NOTHING
from sora_spec.plan.planner import Plan, make_plan

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

_ABSENT = "-"


def compare(
    before: Spec,
    after: Spec,
    gpu: str,
    mode: Mode,
    hardware: str | None = None,
    typed: frozenset[str] = NOTHING,
) -> dict[str, Any]:
    """Fields as `{path: [a, b]}` and costs as `{name: [a, b]}`, None where there is no plan.

    Without `gpu` each on its own device. `typed`: what arguments said of the second one (`layout.typed_paths`).
    """
    left, right = fields_of(before), fields_of(after)
    fields = {
        path: [left.get(path, _ABSENT), right.get(path, _ABSENT)]
        for path in dict.fromkeys([*left, *right])
        if left.get(path, _ABSENT) != right.get(path, _ABSENT)
    }
    devices = [find_device(gpu or spec.hardware.gpu, hardware).name for spec in (before, after)]
    columns = [
        _costs(spec, name, mode, hardware, said)
        for spec, name, said in zip((before, after), devices, (NOTHING, typed), strict=True)
    ]
    rows = list(dict.fromkeys([*columns[0], *columns[1]]))
    costs = {row: [columns[0].get(row), columns[1].get(row)] for row in rows}
    names = [before.name, after.name]
    return {"names": names, "gpu": devices[0], "gpus": devices, "mode": mode, "fields": fields, "costs": costs}


def fields_of(spec: Spec) -> dict[str, str]:
    """Every field of a spec, defaults included, as YAML by its dotted path."""
    return _flat(spec.model_dump(mode="json"))


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{path}.{key}" if path else key)
        return found
    return {path: flow(value)}


def _costs(
    spec: Spec, gpu: str, mode: Mode, hardware: str | None, typed: frozenset[str]
) -> dict[str, float | str | None]:
    try:
        plan = make_plan(planned_job(spec, find_device(gpu, hardware), Question(mode=mode), typed))
    except UserError as error:
        return {"problem": error.message}
    return costs_of(plan)


def costs_of(plan: Plan) -> dict[str, float | str | None]:
    """What a plan costs: counts, bytes, seconds and dollars, the likely values."""
    denoiser, times = plan.components["denoiser"], plan.times
    return {
        "parameters": denoiser.parameters,
        "forward_flops": denoiser.forward_flops,
        "allocated_bytes": round(plan.allocated.likely),
        "device_bytes": round(plan.needed.likely),
        "step_seconds": times.step.seconds.likely,
        "total_seconds": times.total_seconds.likely,
        "cost": None if times.cost is None else times.cost.likely,
    }


def comparison_text(found: dict[str, Any]) -> str:
    """The comparison for people."""
    names = found["names"]
    rows = [("", *names), *((path, *pair) for path, pair in found["fields"].items())]
    if not found["fields"]:
        rows.append(("no field differs", "", ""))
    rows.append((f"{found['mode']} on", *found["gpus"]))
    rows += [
        (name, shown_cost(name, a), shown_cost(name, b) + shown_ratio(a, b)) for name, (a, b) in found["costs"].items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows)


def shown_cost(name: str, value: Any) -> str:
    """A value of `costs_of` for people."""
    if value is None or isinstance(value, str):
        return value or _ABSENT
    if name.endswith("_bytes"):
        return f"{value / GIB:.2f} GiB"
    if name.endswith("_seconds"):
        return duration(value)
    return f"${value:,.2f}" if name == "cost" else f"{value:,}"


def shown_ratio(a: Any, b: Any) -> str:
    """How many times the second is the first; nothing where they are equal or no numbers."""
    if isinstance(a, str) or isinstance(b, str) or not a or not b or abs(b / a - 1) < 5e-4:
        return ""
    return f"  (× {b / a:.3g})"
