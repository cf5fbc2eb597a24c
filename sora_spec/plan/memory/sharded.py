"""The highest moment of a training step under FSDP2: what is alive in the model, and what FSDP2 holds at that moment.

The schedule of the graph knows activations and whole gradients, `sora_spec.graph.passes.shard` what is gathered and
reduced when. Both meet here, block by block: a block's whole gradients are gone once they are reduced. Of copies of a
block a few at either end are looked at: all others differ by what grows evenly from copy to copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from sora_spec.graph.eager.tape import YamlPath
from sora_spec.graph.passes.shard import Copies, Held, Messages, Order, Sharding, Visit, messages, units_of, visits
from sora_spec.plan.memory.schedule import Run, Schedule
from sora_spec.plan.memory.workload import alive_by_path

_ENDS = 3
"""Copies of a block at either end of a run in which the highest moment is sought."""
_OUTSIDE = -1
"""In place of the number of a block: what FSDP2's root does not hold either, such as the loss."""


class ShardedPeak(NamedTuple):
    """The moment at which most bytes are alive on a rank, the shards of the weights aside."""

    activation_bytes: int
    whole_gradient_bytes: int
    """Gradients that are not yet reduced."""
    held: Held
    input_bytes: int
    """Inputs that stay throughout."""
    by_path: tuple[tuple[YamlPath, int], ...]
    """Activations by the YAML value that makes them, largest first."""


class _Stretch(NamedTuple):
    """Ops `start` to `end` (exclusive), all of one unit."""

    block: int | None
    backward: bool
    start: int
    end: int


class _Pass(NamedTuple):
    """A stretch in one of its copies, and by how many bytes of activations copies before it have raised the level."""

    stretch: _Stretch
    copy: int
    shift: int


class _Alive(NamedTuple):
    """Bytes of the model at one moment."""

    activations: int
    root: int
    """Whole gradients of the root."""
    blocks: int
    """Whole gradients of all blocks up to here, as the graph keeps them."""


class _Moment(NamedTuple):
    """A moment of a stretch: after op `born_by`, once what is dead at op `alive_at` is freed."""

    at: _Pass
    born_by: int
    alive_at: int
    activations: int
    gradients: int
    held: Held

    @property
    def height(self) -> int:
        return self.activations + self.gradients + self.held.total


@lru_cache(maxsize=1024)
def sharded_peak(schedule: Schedule, batch: int, sharding: Sharding) -> ShardedPeak:
    """The highest moment of a step. Cached."""
    sizes = schedule.sizes_at(batch)
    best = max(_Walk(schedule, sizes, sharding).moments(), key=lambda moment: moment.height)
    at = best.at
    by_path = alive_by_path(schedule, sizes, best.born_by, best.alive_at, at.stretch.start, at.copy)
    inputs = sum([sizes[storage] for storage in schedule.inputs])
    return ShardedPeak(best.activations, best.gradients, best.held, inputs, by_path)


@lru_cache(maxsize=256)
def left_gathered(schedule: Schedule, sharding: Sharding) -> Held:
    """What a forward pass without gradients leaves gathered: the root, and the blocks where they are not resharded."""
    seen = _visits(schedule, sharding)
    return seen[len(seen) // 2 - 1].during._replace(gathering=0)


@lru_cache(maxsize=256)
def step_messages(schedule: Schedule, sharding: Sharding) -> Messages:
    """Bytes that one rank sends in one forward and backward pass."""
    return messages(units_of(schedule.graph, sharding), block_order(schedule), sharding)


@lru_cache(maxsize=256)
def exchanged_bytes(schedule: Schedule, batch: int) -> int:
    """Bytes of the tensors that the ranks of a sequence group pass round in one forward and backward pass."""
    graph, sizes = schedule.graph, schedule.sizes_at(batch)
    found = 0
    for op in graph.ops:
        if op.name in ("all_to_all", "all_gather"):
            found += graph.times(op.region) * sizes[op.outputs[0][0]]
        elif op.name == "reduce_scatter":
            found += graph.times(op.region) * sizes[op.inputs[0][0]]
    return found


def block_order(schedule: Schedule) -> Order:
    """Blocks of the forward pass by their numbers in the graph; of repeats a few copies at either end."""
    found: list[int | Copies] = []
    series, before = list[int](), 0
    for block, copy in _blocks(_passes(schedule, [0] * len(schedule.runs))):
        if copy > before + 1:
            found.append(Copies(tuple(series), copy - before - 1))
        if copy != before:
            series, before = [], copy
        series.append(block)
        found.append(block)
    return found


@lru_cache(maxsize=256)
def _visits(schedule: Schedule, sharding: Sharding) -> tuple[Visit, ...]:
    return tuple(visits(units_of(schedule.graph, sharding), block_order(schedule), sharding))


@lru_cache(maxsize=256)
def _stretches(schedule: Schedule) -> tuple[_Stretch, ...]:
    graph = schedule.graph
    units = [_OUTSIDE if region.path.startswith("objective") else region.block for region in graph.regions]
    found: list[_Stretch] = []
    start = 0
    for index, op in enumerate(graph.ops):
        key = (units[op.region], op.backward)
        following = graph.ops[index + 1] if index + 1 < len(graph.ops) else None
        if following is None or (units[following.region], following.backward) != key:
            found.append(_Stretch(*key, start, index + 1))
            start = index + 1
    return tuple(found)


def _passes(schedule: Schedule, nets: list[int]) -> list[_Pass]:
    """Stretches in those copies in which the highest moment can be; each copy of a run raises the level by its net."""
    runs = iter(zip(schedule.runs, nets, strict=True))
    (run, net), shift, inside = next(runs, (None, 0)), 0, list[_Stretch]()
    found: list[_Pass] = []
    for stretch in _stretches(schedule):
        if run is None or stretch.start < run.start:
            found.append(_Pass(stretch, 0, shift))
            continue
        inside.append(stretch)
        if stretch.end == run.end:
            for copy in _outer(run):
                found += [_Pass(again, copy, shift + copy * net) for again in inside]
            shift += run.extra * net
            (run, net), inside = next(runs, (None, 0)), []
    return found


def _outer(run: Run) -> list[int]:
    """Copies at either end of a run."""
    times = run.extra + 1
    return [*range(min(_ENDS, times)), *range(max(_ENDS, times - _ENDS), times)]


def _blocks(passes: list[_Pass]) -> dict[tuple[int, int], None]:
    """Blocks of the forward pass with their copies, in order."""
    found = [(p.stretch.block, p.copy) for p in passes if not p.stretch.backward]
    return dict.fromkeys((block, copy) for block, copy in found if block is not None and block != _OUTSIDE)


class _Walk:
    """Both passes of a step, stretch by stretch."""

    def __init__(self, schedule: Schedule, sizes: list[int], sharding: Sharding) -> None:
        self.schedule, self.sizes = schedule, sizes
        graph = schedule.graph
        roots = frozenset(
            storage
            for storage in schedule.gradients
            if graph.regions[graph.ops[graph.tape.born[storage]].region].block is None
        )
        self.keeps = (None, roots, schedule.gradients - roots)
        self.levels = [schedule.levels(sizes, keep) for keep in self.keeps]
        # Copies of a block ask for the same moments again.
        self.alive: dict[int, _Alive] = {}
        self.tops: dict[int, int] = {}
        nets = [self.before(run.end).activations - self.before(run.start).activations for run in schedule.runs]
        self.passes = _passes(schedule, nets)
        self.visits = _visits(schedule, sharding)
        self.count = len(self.visits) // 2 - 2

    def before(self, index: int) -> _Alive:
        """What is alive just before op `index` allocates, or after the last op."""
        found = self.alive.get(index)
        if found is None:
            found = self.alive[index] = self._before(index)
        return found

    def _before(self, index: int) -> _Alive:
        if index == len(self.schedule.graph.ops):
            everything, root, blocks = [self._left(keep) for keep in self.keeps]
        else:
            everything, root, blocks = [
                self.schedule.entering(self.sizes, level, index, keep)
                for level, keep in zip(self.levels, self.keeps, strict=True)
            ]
        return _Alive(everything - root - blocks, root, blocks)

    def _left(self, keep: frozenset[int] | None) -> int:
        died = self.schedule.graph.tape.died
        made = range(len(self.schedule.graph.residents), len(self.sizes)) if keep is None else keep
        return sum(self.sizes[storage] for storage in made if died[storage] is None)

    def moments(self) -> Iterator[_Moment]:
        """All moments that can be the highest."""
        seen, last, begun = 0, None, False
        backward = False
        for at in self.passes:
            stretch = at.stretch
            if stretch.backward and not backward:
                backward, seen, last, begun = True, 0, None, False
            block = stretch.block
            if block == _OUTSIDE:
                yield self._highest(at, self._outside(backward, begun or seen > 0), 0)
                continue
            if block is None:
                visit, fresh = self._root(backward, seen), not begun and seen == 0
                begun = True
            else:
                fresh = (block, at.copy) != last
                seen, last = seen + fresh, (block, at.copy)
                visit = self.visits[seen if not backward else self.count + 2 + seen]
            yield from self._of(at, visit, fresh)
        if backward:
            left = self.before(len(self.schedule.graph.ops))
            yield from self._leaving(self.passes[-1], self.visits[-1], left.root)

    def _outside(self, backward: bool, after: bool) -> Held:
        """Before the root begins, and once it has returned."""
        if not backward and not after:
            return self.visits[0].during._replace(gathered=0, gathering=0)
        return self.visits[self.count + 1].during._replace(gathering=0)

    def _root(self, backward: bool, seen: int) -> Visit:
        """The root's visit before, between or after the blocks."""
        first = self.count + 2 if backward else 0
        if seen == 0:
            return self.visits[first]
        return self.visits[first + seen + (seen == self.count)]

    def _of(self, at: _Pass, visit: Visit, fresh: bool) -> Iterator[_Moment]:
        start, end = self.before(at.stretch.start), self.before(at.stretch.end)
        if fresh:
            for held in visit.entering:
                index = at.stretch.start
                yield _Moment(at, index - 1, index, start.activations + at.shift, start.root, held)
        yield self._highest(at, visit.during, start.blocks)
        if visit.block is not None:
            yield from self._leaving(at, visit, end.blocks - start.blocks)

    def _highest(self, at: _Pass, held: Held, earlier: int) -> _Moment:
        """The highest moment while the ops of a stretch run; `earlier`: blocks' gradients that are reduced by now."""
        everything, root, blocks = self.levels
        start = at.stretch.start
        if start not in self.tops:
            self.tops[start] = max(range(start, at.stretch.end), key=everything.__getitem__)
        index = self.tops[start]
        gradients = root[index] + blocks[index]
        activations = everything[index] - gradients + at.shift
        return _Moment(at, index, index, activations, gradients - earlier, held)

    def _leaving(self, at: _Pass, visit: Visit, own: int) -> Iterator[_Moment]:
        """Around the reduction of the unit's whole gradients, `own` bytes."""
        if visit.copying is None or visit.reducing is None:
            return
        end = at.stretch.end
        alive = self.before(end)
        root = alive.root if visit.block is not None else 0
        activations = alive.activations + at.shift
        yield _Moment(at, end - 1, end, activations, root + own, visit.copying)
        yield _Moment(at, end - 1, end, activations, root, visit.reducing)
