"""A model graph as arrays: when each tensor is born and dies, and how large it is for any batch.

Everything that a graph's schedule depends on but the batch is fixed here: the order of the ops and the life of every
tensor. Sizes and work are affine in the batch, a + b·batch, and a graph at a batch larger than any a gives both by
division with remainder. The graph of a single sample is made by itself: extents of 1 change strides, and with them
which reshapes copy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from sora_spec.graph import Graph, Setting, graph_from_spec
from sora_spec.graph.component import Component
from sora_spec.graph.eager.tape import YamlPath
from sora_spec.graph.ir import Kind, Resident, kind_of

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec

ANY = 2**60
"""The batch that stands for every batch from 2 up: larger than anything that does not grow with it."""

Coefficients = tuple[int, int]
"""a and b of a + b·batch."""
Row = tuple[Kind, bool, int, int, int]
"""Kind of op, backward or not, FLOPs, bytes moved, how often it runs."""


class Run(NamedTuple):
    """Ops `start` to `end` (exclusive), which run `1 + extra` times; `end` is never the last op."""

    start: int
    end: int
    extra: int


class Weight(NamedTuple):
    """A parameter, buffer or input."""

    resident: Resident
    times: int
    part: str
    """First two segments of the path of its region, such as `vae.encoder`."""
    yaml: YamlPath


@dataclass(frozen=True, eq=False)
class Schedule:
    """One component at every batch from 2 up, or at exactly one batch (then b is 0)."""

    graph: Graph
    """At `ANY` batch or a single sample; its sizes and work are not used."""
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
    def dropped(self) -> tuple[int, ...]:
        """Inputs that the step lets go of: they come and go like activations."""
        died, last = self.graph.tape.died, len(self.graph.ops)
        return tuple(
            number
            for number, resident in enumerate(self.graph.residents)
            if resident.role == "input"
            for end in (died[number],)
            if end is not None and end < last
        )

    @cached_property
    def activations(self) -> tuple[tuple[int, int, int, YamlPath], ...]:
        """Storages that are neither residents nor gradients: number, birth, death, and the YAML value behind them."""
        graph, tape, gradients = self.graph, self.graph.tape, self.gradients
        paths = [graph.yaml(region) for region in range(len(graph.regions))]
        never = len(graph.ops) + 1
        inputs = tuple((storage, 0, tape.died[storage] or never, ("clip",)) for storage in self.dropped)
        return inputs + tuple(
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
    def roles(self) -> dict[str, list[int]]:
        """Storages of the weights by role; those that get a gradient are `trained` as well."""
        found: dict[str, list[int]] = {}
        for storage, weight in enumerate(self.weights):
            found.setdefault(weight.resident.role, []).append(storage)
            if weight.resident.trained:
                found.setdefault("trained", []).append(storage)
        return found

    @cached_property
    def parameters(self) -> int:
        return sum(w.resident.numel * w.times for w in self.weights if w.resident.role == "parameter")

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Storages of the inputs that stay throughout."""
        dropped = set(self.dropped)
        return tuple(storage for storage in self.roles.get("input", ()) if storage not in dropped)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Stretches that stand for several copies of themselves."""
        extra = self.graph.repeat.times - 1 if self.graph.repeat is not None else 0
        return tuple(Run(run.start, run.end, extra) for run in self.graph.runs)

    @cached_property
    def equal_ops(self) -> tuple[tuple[Kind, bool, Coefficients, Coefficients, int], ...]:
        """Ops that are alike at every batch, gathered: kind, backward or not, FLOPs, bytes moved, how often."""
        graph = self.graph
        times = [graph.times(region) for region in range(len(graph.regions))]
        found = Counter[tuple[Kind, bool, Coefficients, Coefficients]]()
        for op, work in zip(graph.ops, self.work, strict=True):
            found[(kind_of(op), op.backward, *work)] += times[op.region]
        return tuple((*key, count) for key, count in found.items())

    def rows(self, batch: int) -> tuple[Row, ...]:
        """The ops at a batch."""
        return tuple(
            [
                (kind, backward, flops[0] + flops[1] * batch, moved[0] + moved[1] * batch, count)
                for kind, backward, flops, moved, count in self.equal_ops
            ]
        )

    def workspaces_at(self, batch: int) -> list[int]:
        """Bytes that each op's kernel takes while it runs, where the setting has them counted."""
        if not any(slope for _, slope in self.sizes):
            return [op.workspace_bytes for op in self.graph.ops]
        half = ANY // 2  # what does not grow may be negative here: buffers less results
        lines = [divmod(op.workspace_bytes + half, ANY) for op in self.graph.ops]
        return [max(0, fixed - half + slope * batch) for slope, fixed in lines]

    def forward_flops(self, batch: int) -> int:
        graph = self.graph
        return sum(
            graph.times(op.region) * (flops[0] + flops[1] * batch)
            for op, (flops, _) in zip(graph.ops[: graph.forward_ops], self.work, strict=False)
        )

    def levels(self, sizes: list[int], keep: frozenset[int] | None = None) -> list[int]:
        """Bytes alive right after each op, without what stays throughout: all of them, or of the storages in `keep`."""
        tape, ops = self.graph.tape, len(self.graph.ops)
        steps = [0] * (ops + 1)
        made = range(len(self.graph.residents), len(sizes))
        chosen = (*self.dropped, *made) if keep is None else keep
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
    """The schedule of a component that holds at `setting.batch`. Cached: one for one sample, one for more."""
    batch = 1 if setting.batch == 1 else ANY
    return _schedule(_Shape(spec, component), replace(setting, batch=batch, rounding=1), setting.rounding)


class _Shape:
    """What a graph depends on, as a key of the cache."""

    __slots__ = ("component", "hashed", "parts", "spec")

    def __init__(self, spec: Spec, component: Component) -> None:
        self.spec = spec
        self.component: Component = component
        self.parts = _parts(spec, component)
        self.hashed = hash(self.parts)

    def __hash__(self) -> int:
        return self.hashed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self.hashed == other.hashed and self.parts == other.parts


def _parts(spec: Spec, component: Component) -> tuple[object, ...]:
    """The values of a spec that decide one component's graph."""
    clip, vae, condition = spec.clip, spec.vae, spec.condition
    if component == "text_encode":
        from sora_spec.language.text_encoders import find_config  # most specs have no text encoder

        assert condition.kind == "text"
        return (component, find_config(condition.encoder), condition.encoder, condition.tokens)
    shape = (component, clip.frames, clip.height, clip.width, spec.patch)
    if component.startswith("vae"):
        return (*shape, vae)
    network = (vae.kind, vae.compression, vae.channels, spec.backbone, spec.temporal, condition)
    if component == "sampler_step":
        return (*shape, *network, spec.objective, spec.sampler)
    return (*shape, *network, spec.objective, spec.train.recompute)


@lru_cache(maxsize=256)
def _schedule(shape: _Shape, setting: Setting, rounding: int) -> Schedule:
    graph = graph_from_spec(shape.spec, shape.component, setting)
    line = _fixed if setting.batch == 1 else _line
    sizes = tuple([line(size) for size in graph.tape.sizes])
    work = tuple([(line(op.flops), line(op.read_bytes + op.written_bytes)) for op in graph.ops])
    return Schedule(graph, sizes, work, rounding)


def _fixed(value: int) -> Coefficients:
    return value, 0


def _line(value: int) -> Coefficients:
    """a and b of a + b·ANY."""
    slope, fixed = divmod(value, ANY)
    assert slope < ANY, "sizes and work are affine in the batch"
    return fixed, slope
