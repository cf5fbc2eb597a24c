"""Where a plan's memory and work go: a tree from the parts of the system down to the ops of the model graph.

Bytes are those of one phase on one device and add up to what the verdict compares; FLOPs are those of one pass on one
device (a multiply-accumulate is 2); parameters are those of the whole model, whatever a rank holds of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sora_spec.graph.ir import Kind, kind_of
from sora_spec.plan.interval import Interval, total
from sora_spec.plan.job import Job
from sora_spec.plan.memory.generate_phases import decode_work, network_work
from sora_spec.plan.memory.meaning import Group, Tag, label
from sora_spec.plan.memory.resident import dotted
from sora_spec.plan.memory.schedule import Schedule
from sora_spec.plan.memory.terms import Phase, Term
from sora_spec.plan.memory.train_phases import step_work
from sora_spec.plan.memory.workload import Workload
from sora_spec.plan.planner import Plan
from sora_spec.plan.show.values import line_of

if TYPE_CHECKING:
    from sora_spec.language.source import Document

TITLES: dict[Group, str] = {
    "network": "denoiser",
    "state": "training state",
    "VAE": "VAE",
    "text": "text encoder",
    "messages": "sharding and messages",
    "machine": "allocator and driver",
}
_SECTIONS: dict[Group, str] = {
    "network": "backbone",
    "state": "train.optimizer",
    "VAE": "vae",
    "text": "condition",
    "messages": "parallel",
    "machine": "hardware",
}
_KINDS: dict[Kind, str] = {
    "linear": "2·M·K·N FLOPs",
    "conv": "2 × outputs × kernel × input channels FLOPs",
    "attention": "4·queries·keys·width FLOPs",
}
CERTAINTIES: tuple[Tag, ...] = ("exact", "documented", "estimated")


@dataclass(frozen=True)
class Row:
    """One line of the tree."""

    key: str
    """The same for the same thing in another plan, so that an opened row stays open."""
    name: str
    bytes: Interval | None = None
    share: float = 0.0
    """Of what the phase needs."""
    flops: int | None = None
    parameters: int | None = None
    tag: Tag | None = None
    """Certainty: of several terms the least certain."""
    path: str = ""
    """Of the YAML value that it comes from."""
    line: int | None = None
    formula: str = ""
    children: tuple[Row, ...] = ()
    part: Group | None = None
    """Set where the row has ops: `op_rows` lists them."""


def breakdown(plan: Plan, phase: Phase, document: Document | None = None) -> tuple[Row, ...]:
    """The tree of a phase, largest part first."""
    grouped: dict[Group, list[Term]] = {group: [] for group in TITLES}
    for term in phase.terms:
        grouped[term.meaning.group].append(term)
    whole = max(phase.device.likely, 1.0)
    rows = [_part(plan, group, terms, whole, document) for group, terms in grouped.items() if terms]
    return tuple(sorted(rows, key=lambda row: -row.bytes.likely if row.bytes else 0.0))


def _part(plan: Plan, group: Group, terms: list[Term], whole: float, document: Document | None) -> Row:
    """A part with its rows: those of the model by the YAML value behind them, others term by term."""
    work = part_work(plan.job, group)
    children = _by_value(group, terms, work, plan.job, whole, document) if work else _plain(terms, whole, document)
    vae = group == "network" and plan.job.stage == "vae"
    title, path = ("VAE", "vae") if vae else (TITLES[group], _SECTIONS[group])
    return Row(
        key=group,
        name=title,
        bytes=total(term.bytes for term in terms),
        share=total(term.bytes for term in terms).likely / whole,
        flops=_share(sum(_flops(work.schedule, work.batch).values()), plan.job, group) if work else None,
        parameters=work.parameters if work else None,
        tag=least_certain(terms),
        path=path,
        line=line_of(path, document),
        formula=_sum_formula(group),
        children=_largest_first(children),
    )


def _sum_formula(group: Group) -> str:
    return "sum of its rows; FLOPs of one pass" if group in ("network", "VAE") else "sum of its rows"


def part_work(job: Job, group: Group) -> Workload | None:
    """What a part of the model runs in one pass; None for what is no part of the graph."""
    if group == "network":
        return step_work(job) if job.mode == "train" else network_work(job)
    if group == "VAE" and job.has_vae and job.stage != "vae":
        return job.work("vae_encode", job.micro_batch, "fp32") if job.mode == "train" else decode_work(job)
    return None


def _by_value(
    group: Group, terms: list[Term], work: Workload, job: Job, whole: float, document: Document | None
) -> list[Row]:
    """Rows by YAML value, each with its terms; values that only compute have a row too."""
    flops, parameters = _flops(work.schedule, work.batch), _parameters(work)
    paths = dict.fromkeys([*(term.path for term in terms), *flops, *parameters])
    rows = list[Row]()
    for path in paths:
        own = [term for term in terms if term.path == path]
        computes = path in flops or path in parameters
        if not computes:
            rows += _plain(own, whole, document)
            continue
        bytes_ = total(term.bytes for term in own)
        inner = _plain(own, whole, document)
        rows.append(
            Row(
                key=f"{group}/{path}",
                name=label(path),
                bytes=bytes_,
                share=bytes_.likely / whole,
                flops=_share(flops.get(path, 0), job, group),
                parameters=parameters.get(path, 0),
                tag=least_certain(own) if own else None,
                path=path,
                line=line_of(path, document),
                formula="weights and activations of its ops",
                children=_largest_first(inner),
                part=group,
            )
        )
    return rows


def _share(flops: int, job: Job, group: Group) -> int:
    """What one rank of a sequence group computes."""
    return flops // job.spec.parallel.sequence if group == "network" and job.mode == "train" else flops


def _plain(terms: Iterable[Term], whole: float, document: Document | None) -> list[Row]:
    return [
        Row(
            key=f"term/{term.component}/{term.use}/{term.path}",
            name=term.name,
            bytes=term.bytes,
            share=term.bytes.likely / whole,
            tag=term.tag,
            path=term.path,
            line=line_of(term.path, document),
            formula=term.formula,
        )
        for term in terms
    ]


def _largest_first(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: -(row.bytes.likely if row.bytes else 0.0)))


def least_certain(terms: Sequence[Term]) -> Tag | None:
    """Certainty of a sum."""
    found = {term.tag for term in terms}
    return next((tag for tag in reversed(CERTAINTIES) if tag in found), None)


@lru_cache(maxsize=64)
def _flops(schedule: Schedule, batch: int) -> dict[str, int]:
    """FLOPs of a pass by YAML path."""
    graph = schedule.graph
    paths = [dotted(graph.yaml(region)) for region in range(len(graph.regions))]
    found = Counter[str]()
    for op, (flops, _) in zip(graph.ops, schedule.work, strict=True):
        found[paths[op.region]] += graph.times(op.region) * (flops[0] + flops[1] * batch)
    return dict(found)


def _parameters(work: Workload) -> dict[str, int]:
    found = Counter[str]()
    for weight in work.weights:
        if weight.resident.role == "parameter":
            found[dotted(weight.yaml)] += weight.resident.numel * weight.times
    return dict(found)


@dataclass(frozen=True)
class OpRow:
    """Equal ops of the model graph that one YAML value makes."""

    op: str
    """ATen's name."""
    kind: Kind
    backward: bool
    times: int
    flops: int
    """Of all of them, in one pass."""
    written_bytes: int
    """Results of all of them."""
    formula: str


def op_rows(plan: Plan, part: Group, path: str) -> tuple[OpRow, ...]:
    """The ops behind a row of the tree, dearest first."""
    work = part_work(plan.job, part)
    return () if work is None else _op_rows(work.schedule, work.batch, path)


@lru_cache(maxsize=64)
def _op_rows(schedule: Schedule, batch: int, path: str) -> tuple[OpRow, ...]:
    graph, sizes = schedule.graph, schedule.sizes_at(batch)
    own = {region for region in range(len(graph.regions)) if dotted(graph.yaml(region)) == path}
    found: dict[tuple[str, Kind, bool, int, int], int] = {}
    for op, (flops, _) in zip(graph.ops, schedule.work, strict=True):
        if op.region in own:
            written = sum(sizes[output[0]] for output in op.outputs)
            key = (op.name, kind_of(op), op.backward, flops[0] + flops[1] * batch, written)
            found[key] = found.get(key, 0) + graph.times(op.region)
    rows = [
        OpRow(name, kind, backward, times, times * flops, times * written, op_formula(kind, backward))
        for (name, kind, backward, flops, written), times in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.flops, -row.written_bytes)))


def op_formula(kind: Kind, backward: bool) -> str:
    """How an op's FLOPs are counted."""
    if kind == "attention" and backward:
        return "2.5 × forward: the flash kernel makes the scores anew"
    return _KINDS.get(kind, "no matrix product: its time is that of its bytes")
