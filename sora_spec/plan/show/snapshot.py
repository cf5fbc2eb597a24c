"""One answer of the planner as widgets read it: frozen, aggregated, with nothing left to reckon."""

from __future__ import annotations

from dataclasses import dataclass

from sora_spec.language.diagnostics import Diagnostic
from sora_spec.plan.interval import Interval, total
from sora_spec.plan.job import Job, Question
from sora_spec.plan.memory.components import Part
from sora_spec.plan.memory.meaning import Stretch
from sora_spec.plan.planner import Plan, Times
from sora_spec.plan.question import Answer
from sora_spec.plan.show.breakdown import Row, breakdown
from sora_spec.recipe.parts import PartName


@dataclass(frozen=True)
class Share:
    """One stretch of the stacked bar."""

    stretch: Stretch
    bytes: float
    """The likely value."""
    share: float
    """Of the device's memory, or of the need where that is more."""


@dataclass(frozen=True)
class PhaseRow:
    """One phase."""

    name: str
    allocated: Interval
    reserved: Interval
    device: Interval
    peak: bool


@dataclass(frozen=True)
class TimeRow:
    """One quantity of time or money. `unit` is `seconds`, `hours` or `usd`; no value where no price is known."""

    name: str
    value: Interval | None
    unit: str


@dataclass(frozen=True)
class Snapshot:
    """An answer for the screen. Everything behind `plan` is None or empty where there is no plan."""

    question: Question
    standing: str
    """`yes`, `tight`, `no` or `errors`."""
    diagnostics: tuple[Diagnostic, ...]
    problem: str
    hint: str
    plan: Plan | None = None
    needed: Interval | None = None
    capacity: int = 0
    headroom: Interval | None = None
    bar: tuple[Share, ...] = ()
    phases: tuple[PhaseRow, ...] = ()
    rows: tuple[Row, ...] = ()
    """Of the phase that needs most; `breakdown` makes those of others."""
    times: tuple[TimeRow, ...] = ()
    spends: tuple[tuple[str, float], ...] = ()
    """What a step is spent on, as shares."""
    components: dict[PartName, Part] | None = None

    @property
    def job(self) -> Job | None:
        return None if self.plan is None else self.plan.job


def snapshot_of(answer: Answer) -> Snapshot:
    """The answer, aggregated."""
    bare = Snapshot(answer.question, answer.standing, answer.diagnostics, answer.problem, answer.hint)
    plan = answer.plan
    if plan is None:
        return bare
    return Snapshot(
        **{name: getattr(bare, name) for name in ("question", "standing", "diagnostics", "problem", "hint")},
        plan=plan,
        needed=plan.needed,
        capacity=plan.device.memory_bytes,
        headroom=plan.headroom,
        bar=bar_of(plan),
        phases=tuple(PhaseRow(p.name, p.allocated, p.reserved, p.device, p is plan.peak) for p in plan.phases),
        rows=breakdown(plan, plan.peak, answer.document),
        times=time_rows(plan.job, plan.times),
        spends=_spends(plan.times),
        components=plan.components,
    )


def bar_of(plan: Plan) -> tuple[Share, ...]:
    """The highest phase as stretches; together the likely need."""
    found: dict[Stretch, float] = {}
    for term in plan.peak.terms:
        stretch = term.meaning.stretch
        found[stretch] = found.get(stretch, 0.0) + term.bytes.likely
    whole = max(plan.device.memory_bytes, plan.needed.likely)
    return tuple(Share(stretch, found[stretch], found[stretch] / whole) for stretch in Stretch if found.get(stretch))


def time_rows(job: Job, times: Times) -> tuple[TimeRow, ...]:
    """Step, whole, GPU-hours and price."""
    steps = job.vae_training.steps if job.stage == "vae" else job.spec.train.steps
    generates = job.mode == "generate"
    clips = ("one clip" if job.generated == 1 else f"{job.generated} clips") + (" each" if job.count > 1 else "")
    return (
        TimeRow("step of the sampler" if generates else "one step", times.step.seconds, "seconds"),
        TimeRow(
            clips if generates else f"{steps:,} steps",
            times.total_seconds,
            "seconds",
        ),
        TimeRow("GPU-hours", times.gpu_hours, "hours"),
        TimeRow("price", times.cost, "usd"),
    )


def _spends(times: Times) -> tuple[tuple[str, float], ...]:
    whole = total(times.step.parts.values()).likely
    return tuple((name, part.likely / whole) for name, part in times.step.parts.items() if part.likely > 0.005 * whole)
