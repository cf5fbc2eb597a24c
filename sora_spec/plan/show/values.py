"""A plan as plain values: the stable form that scripts and the terminal interface read (`specs/plan.schema.json`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sora_spec.language.source import locate
from sora_spec.plan.amounts import whole
from sora_spec.plan.interval import Interval
from sora_spec.plan.memory.components import Part
from sora_spec.plan.memory.terms import Phase, Term
from sora_spec.plan.planner import Plan
from sora_spec.plan.search.advised import NO_ADVICE, Advice, Advised
from sora_spec.plan.search.fastest import seconds_per_clip
from sora_spec.recipe.parts import ROLES

if TYPE_CHECKING:
    from sora_spec.language.source import Document

CONTRACT = 1
"""Version of the form. Keys are added without raising it, and never renamed or removed."""


def plan_values(plan: Plan, advice: Advice = NO_ADVICE, document: Document | None = None) -> dict[str, Any]:
    """A plan as JSON values. Lines are those of `document`, null without one."""
    job, parts, times = plan.job, plan.components, plan.times
    return {
        "contract": CONTRACT,
        "name": job.spec.name,
        "mode": job.mode,
        "stage": job.stage,
        "gpu": job.device.name,
        "count": job.count,
        "fits": plan.fits,
        "verdict": plan.verdict,
        "lacks": lack_values(plan, document),
        "precision": job.precision,
        "micro_batch": _clips(plan),
        "phases": [_phase(phase) for phase in plan.phases],
        "components": {name: {"role": ROLES[name], **_part(part)} for name, part in parts.items()},
        "memory": {
            "capacity_bytes": job.device.memory_bytes,
            "headroom_bytes": whole(plan.headroom),
            "allocated_bytes": whole(plan.allocated),
            "reserved_bytes": whole(plan.reserved),
            "device_bytes": whole(plan.needed),
            "host_bytes": whole(plan.host),
            "peak_phase": plan.peak.name,
            "terms": [_term(term, document) for term in plan.peak.terms],
            "host_terms": [_term(term, document) for term in plan.peak.host_terms],
        },
        "time": {
            "step_seconds": _spread(times.step.seconds),
            "total_seconds": _spread(times.total_seconds),
            "gpu_hours": _spread(times.gpu_hours),
            "cost": None if times.cost is None else _spread(times.cost),
        },
        "largest_batch": None if advice.largest is None else _solution(advice.largest),
        "fastest": None if advice.fastest is None else fastest_values(advice.fastest, plan),
        "fixes": [fix_values(fix, plan) for fix in advice.fixes],
        "assumptions": plan.assumptions,
        "not_counted": plan.not_counted,
    }


def lack_values(plan: Plan, document: Document | None = None) -> list[dict[str, Any]]:
    """What stands in the way of the job."""
    return [
        {"path": lack.path, "line": line_of(lack.path, document), "why": lack.why, "help": lack.help}
        for lack in plan.lacks
    ]


def fix_values(fix: Advised, plan: Plan) -> dict[str, Any]:
    """One fix: what to change, what it then needs, and its price in time against the plan that does not fit."""
    before, after = plan.times.total_seconds.likely, fix.plan.times.total_seconds.likely
    return {
        "changes": list(fix.words),
        "overrides": list(fix.overrides),
        "options": list(fix.options),
        "count": fix.plan.job.count,
        "verdict": fix.plan.verdict,
        "device_bytes": whole(fix.plan.needed),
        "step_seconds": _spread(fix.plan.times.step.seconds),
        "time_factor": after / before if before else 1.0,
    }


def fastest_values(fastest: Advised, plan: Plan) -> dict[str, Any]:
    """The fastest setting, and its time against the plan as asked."""
    found = fastest.plan
    before, after = seconds_per_clip(plan), seconds_per_clip(found)
    return {
        "overrides": list(fastest.overrides),
        "options": list(fastest.options),
        "micro_batch": _clips(found),
        "verdict": found.verdict,
        "device_bytes": whole(found.needed),
        "step_seconds": _spread(found.times.step.seconds),
        "total_seconds": _spread(found.times.total_seconds),
        "seconds_per_clip": _spread(after),
        "time_factor": after.likely / before.likely if before.likely else 1.0,
    }


def _clips(plan: Plan) -> int:
    """Clips of one pass."""
    return plan.job.micro_batch if plan.job.mode == "train" else plan.job.generated


def line_of(path: str, document: Document | None) -> int | None:
    """Line of a value, or of the section above it where it is a default; None where an argument gave it."""
    if document is None or document.root is None or not path:
        return None
    span, _ = locate(document.root, path)
    return None if span.text.origin == "argument" else span.line


def _spread(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "likely": interval.likely, "high": interval.high}


def _phase(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "allocated_bytes": whole(phase.allocated),
        "reserved_bytes": whole(phase.reserved),
        "device_bytes": whole(phase.device),
        "host_bytes": whole(phase.host),
    }


def _part(part: Part) -> dict[str, int | None]:
    return {
        "parameters": part.parameters,
        "forward_flops": part.forward_flops,
        "forward_macs": part.forward_macs,
    }


def _term(term: Term, document: Document | None) -> dict[str, Any]:
    return {
        "name": term.name,
        "bytes": round(term.bytes.likely),
        "low_bytes": round(term.bytes.low),
        "high_bytes": round(term.bytes.high),
        "tag": term.tag,
        "level": term.level,
        "path": term.path or None,
        "line": line_of(term.path, document),
    }


def _solution(solution: Advised) -> dict[str, Any]:
    clip = solution.plan.job.spec.clip
    return {
        "value": solution.words[0],
        "overrides": list(solution.overrides),
        "options": list(solution.options),
        "clip": {"frames": clip.frames, "height": clip.height, "width": clip.width},
        "micro_batch": _clips(solution.plan),
        "device_bytes": whole(solution.plan.needed),
    }


def solution_values(solution: Advised) -> dict[str, Any]:
    """What was solved for, and what it was before."""
    return {**_solution(solution), "was": solution.was}
