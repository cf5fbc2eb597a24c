"""A model graph as arrays: when each tensor is born and dies, and how large it is for any batch.

Everything that a graph's schedule depends on but the batch is fixed here: the order of the ops and the life of every
tensor. Sizes and work are affine in the batch, a + b·batch, so two graphs at different batches give all others. The
graph of a single sample is made by itself: extents of 1 change strides, and with them which reshapes copy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from sora_spec.graph import Graph, Setting, graph_from_spec
from sora_spec.graph.component import Component
from sora_spec.graph.ir import Kind, Resident, kind_of
from sora_spec.graph.tape import YamlPath

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec

Coefficients = tuple[int, int]
"""a and b of a + b·batch."""
Row = tuple[Kind, bool, int, int, int]
"""Kind of op, backward or not, FLOPs, bytes moved, how often it runs."""


@dataclass(frozen=True)
class Run:
    """Ops `start` to `end` (exclusive), which run `1 + extra` times; `end` is never the last op."""

    start: int
    end: int
    extra: int


@dataclass(frozen=True)
class Weight:
    """A parameter, buffer or input."""

    resident: Resident
    times: int
    part: str
    """First two segments of the path of its region, such as `vae.encoder`."""
    yaml: YamlPath

    @property
    def in_block(self) -> bool:
        """Whether it belongs to a repeated block of the backbone."""
        return self.part.startswith("backbone.blocks")


@dataclass(frozen=True, eq=False)
class Schedule:
    """One component at every batch from 2 up, or at exactly one batch (then b is 0)."""

    graph: Graph
    """At one of the two batches; its sizes and work are not used."""
    sizes: tuple[Coefficients, ...]
    work: tuple[tuple[Coefficients, Coefficients], ...]
    """FLOPs and bytes moved of every op."""
    rounding: int
    _sized: tuple[int, list[int]] | None = None

    def sizes_at(self, batch: int) -> list[int]:
        """Bytes of every storage."""
        if self._sized is None or self._sized[0] != batch:
            unit = self.rounding
            found = [-(-(a + b * batch) // unit) * unit for a, b in self.sizes]
            object.__setattr__(self, "_sized", (batch, found))
            return found
        return self._sized[1]

    @cached_property
    def gradients(self) -> frozenset[int]:
        """Storages that the backward pass leaves behind: the gradients of the parameters."""
        tape, last = self.graph.tape, len(self.graph.ops)
        residents, first = len(self.graph.residents), self.graph.forward_ops
        return frozenset(
            storage
            for storage, (born, died) in enumerate(zip(tape.born, tape.died, strict=True))
            if storage >= residents and born >= first and (died is None or died >= last)
        )

    @cached_property
    def activations(self) -> tuple[tuple[int, int, int, YamlPath], ...]:
        """Storages that are neither residents nor gradients: number, birth, death, and the YAML value behind them."""
        graph, tape, gradients = self.graph, self.graph.tape, self.gradients
        paths = [graph.yaml(region) for region in range(len(graph.regions))]
        never = len(graph.ops) + 1
        return tuple(
            (storage, tape.born[storage], never if died is None else died, paths[graph.ops[tape.born[storage]].region])
            for storage in range(len(graph.residents), len(self.sizes))
            if storage not in gradients
            for died in (tape.died[storage],)
        )

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Everything that is there before the first op."""
        graph = self.graph
        return tuple(
            Weight(r, graph.times(r.region), _part(graph.regions[r.region].path), graph.yaml(r.region))
            for r in graph.residents
        )

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Stretches that stand for several copies of themselves."""
        extra = self.graph.repeat.times - 1 if self.graph.repeat is not None else 0
        return tuple(Run(run.start, run.end, extra) for run in self.graph.runs)

    def rows(self, batch: int) -> tuple[Row, ...]:
        """Equal ops gathered."""
        graph = self.graph
        times = [graph.times(region) for region in range(len(graph.regions))]
        found = Counter[tuple[Kind, bool, int, int]]()
        for op, (flops, moved) in zip(graph.ops, self.work, strict=True):
            key = (kind_of(op), op.backward, flops[0] + flops[1] * batch, moved[0] + moved[1] * batch)
            found[key] += times[op.region]
        return tuple((*key, count) for key, count in found.items())

    def forward_flops(self, batch: int) -> int:
        """FLOPs of a forward pass."""
        graph = self.graph
        return sum(
            graph.times(op.region) * (flops[0] + flops[1] * batch)
            for op, (flops, _) in zip(graph.ops[: graph.forward_ops], self.work, strict=False)
        )

    def levels(self, sizes: list[int], keep: frozenset[int] | None = None) -> list[int]:
        """Bytes alive right after each op, without residents: all of them, or those of the storages in `keep`."""
        tape, ops = self.graph.tape, len(self.graph.ops)
        steps = [0] * (ops + 1)
        chosen = range(len(self.graph.residents), len(sizes)) if keep is None else keep
        for storage in chosen:
            size, died = sizes[storage], tape.died[storage]
            steps[tape.born[storage]] += size
            if died is not None and died <= ops:
                steps[died] -= size
        return list(accumulate(steps[:ops]))

    def entering(self, sizes: list[int], levels: list[int], index: int, keep: frozenset[int] | None = None) -> int:
        """Bytes alive just before op `index` allocates."""
        return levels[index] - sum(sizes[s] for s in self.births.get(index, ()) if keep is None or s in keep)

    @cached_property
    def births(self) -> dict[int, list[int]]:
        """Storages by the op that makes them."""
        found: dict[int, list[int]] = {}
        for storage in range(len(self.graph.residents), len(self.sizes)):
            found.setdefault(self.graph.tape.born[storage], []).append(storage)
        return found


def _part(path: str) -> str:
    first, _, rest = path.partition(".")
    second = rest.partition(".")[0].partition("[")[0]
    return f"{first}.{second}" if second else first


def schedule_of(spec: Spec, component: Component, setting: Setting) -> Schedule:
    """The schedule of a component that holds at `setting.batch`. Cached.

    The first batch that is asked for gets its own graph; a second one gets another, and from both follow all others.
    """
    batch = setting.batch
    family = _family(_Shape(spec, component), replace(setting, batch=1, rounding=1), setting.rounding)
    if batch == 1:
        return family.single
    if family.all is None and batch not in family.exact:
        if family.exact:
            family.unite(batch)
        else:
            family.exact[batch] = family.at(batch)
    return family.all or family.exact[batch]


class _Shape:
    """What a graph depends on, as a key of the cache."""

    __slots__ = ("component", "hashed", "parts", "spec")

    def __init__(self, spec: Spec, component: Component) -> None:
        self.spec = spec
        self.component: Component = component
        clip, vae = spec.clip, spec.vae
        self.parts = (
            (component, clip.frames, clip.height, clip.width, spec.patch, vae, spec.train.recompute)
            if component.startswith("vae")
            else (
                *(component, clip.frames, clip.height, clip.width, spec.patch),
                *(vae.kind, vae.compression, vae.channels, spec.backbone, spec.temporal),
                *(spec.condition, spec.objective, spec.train.recompute),
            )
        )
        self.hashed = hash(self.parts)

    def __hash__(self) -> int:
        return self.hashed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self.hashed == other.hashed and self.parts == other.parts


class _Family:
    """The schedules of one component in one setting, for every batch."""

    def __init__(self, shape: _Shape, setting: Setting, rounding: int) -> None:
        self.shape, self.setting, self.rounding = shape, setting, rounding
        self.exact: dict[int, Schedule] = {}
        self.all: Schedule | None = None

    @cached_property
    def single(self) -> Schedule:
        """Of one sample."""
        return self.at(1)

    def at(self, batch: int) -> Schedule:
        """Of exactly one batch."""
        graph = graph_from_spec(self.shape.spec, self.shape.component, replace(self.setting, batch=batch))
        sizes = tuple((size, 0) for size in graph.tape.sizes)
        work = tuple(((op.flops, 0), (op.read_bytes + op.written_bytes, 0)) for op in graph.ops)
        return Schedule(graph, sizes, work, self.rounding)

    def unite(self, batch: int) -> None:
        """Make the schedule of all batches from two of them."""
        near, first = next(iter(self.exact.items()))
        second = self.at(batch)
        names = [[op.name for op in schedule.graph.ops] for schedule in (first, second)]
        assert names[0] == names[1], "the schedule depends on the batch"
        sizes = tuple(_line(near, a[0], batch, b[0]) for a, b in zip(first.sizes, second.sizes, strict=True))
        work = tuple(
            (_line(near, a[0][0], batch, b[0][0]), _line(near, a[1][0], batch, b[1][0]))
            for a, b in zip(first.work, second.work, strict=True)
        )
        self.all = Schedule(first.graph, sizes, work, self.rounding)


@lru_cache(maxsize=128)
def _family(shape: _Shape, setting: Setting, rounding: int) -> _Family:
    return _Family(shape, setting, rounding)


def _line(near: int, at_near: int, far: int, at_far: int) -> Coefficients:
    slope, rest = divmod(at_far - at_near, far - near)
    assert rest == 0, "sizes and work are affine in the batch"
    return at_near - near * slope, slope
