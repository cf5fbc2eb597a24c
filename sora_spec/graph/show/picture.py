"""A model graph as boxes and arrows, from which Mermaid and SVG are drawn.

Ops are gathered by the part of the model they belong to, and blocks that are alike into one group. An arrow says that
a part reads what another made; the reading of weights is not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sora_spec.graph.eager.tape import Op, YamlPath
from sora_spec.graph.ir import Graph, Kind, kind_of
from sora_spec.graph.show.printing import LineOf, dotted, layout, no_lines, quantity

Look = Literal["attention", "linear", "conv", "other", "group"]
"""What most of a box's arithmetic is: decides its colour."""


@dataclass(frozen=True)
class Box:
    """A part of the model, or a group of parts that occurs `times` times."""

    id: str
    title: str
    lines: tuple[str, ...]
    look: Look
    inputs: tuple[str, ...] = ()
    """Tensors of the caller that it is the first to read."""
    children: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Picture:
    """Boxes from top to bottom, and arrows between their ids."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str], ...]


@dataclass
class _Stage:
    """Consecutive ops of one part of the model."""

    region: int
    ops: list[Op]
    flops: int = 0
    backward_flops: int = 0
    id: str = ""


@dataclass
class _Unit:
    """The stages of one block, standing for `times` blocks; or a single stage outside blocks."""

    block: int | None
    stages: list[_Stage]
    times: int = 1
    alternates: bool = False
    """Whether its blocks take turns with those of a neighbour."""
    alike_ops: list[list[Op]] = field(default_factory=list[list[Op]])
    """For each stage, the ops of the blocks that it stands for beside its own."""
    id: str = ""

    def absorb(self, other: _Unit) -> None:
        """Stand for another that is alike, too."""
        self.times += other.times
        if not self.alike_ops:
            self.alike_ops = [[] for _ in self.stages]
        for place, stage in enumerate(other.stages):
            self.alike_ops[place] += [*stage.ops, *(other.alike_ops[place] if other.alike_ops else [])]

    def alike(self, other: _Unit, graph: Graph) -> bool:
        """Whether both are blocks that run the same."""
        return self.block is not None and other.block is not None and self.shape(graph) == other.shape(graph)

    def shape(self, graph: Graph) -> list[tuple[str, int, int]]:
        """What decides whether blocks are alike."""
        return [(graph.regions[s.region].path.rpartition("]")[2], len(s.ops), _flops(s.ops)) for s in self.stages]


def _flops(ops: list[Op]) -> int:
    """Of one copy."""
    return sum(op.flops for op in ops)


def _all_flops(graph: Graph, ops: list[Op]) -> int:
    """Of all copies."""
    return sum(op.flops * graph.times(op.region) for op in ops)


def picture_of(graph: Graph, line_of: LineOf = no_lines) -> Picture:
    """The parts of the forward pass in the order in which they run; a step's boxes name their backward FLOPs too."""
    units = _folded(_units(graph, _stages(graph)), graph)
    for unit in units:
        for stage in unit.stages:
            stage.flops = _flops(stage.ops) if unit.block is not None else _all_flops(graph, stage.ops)
    _name(units)
    _add_backward(graph, units)
    firsts = _first_readers(graph, units)
    boxes = tuple(_unit_box(graph, unit, firsts, line_of) for unit in units)
    return Picture(f"{graph.name}: {graph.component}", boxes, _arrows(graph, units))


def _stages(graph: Graph) -> list[_Stage]:
    """Stretches of one region each. One without arithmetic joins its neighbour where that lies inside its region."""
    found: list[_Stage] = []
    for op in graph.ops[: graph.forward_ops]:
        if found and found[-1].region == op.region:
            found[-1].ops.append(op)
        else:
            found.append(_Stage(op.region, [op]))
    return _calls(graph, found) if graph.component == "sampler_step" else _joined(graph, found)


def _calls(graph: Graph, stages: list[_Stage]) -> list[_Stage]:
    """Each call of the network as one stage: the network has a picture of its own."""
    network = next(number for number, region in enumerate(graph.regions) if region.path == "backbone")
    kept: list[_Stage] = []
    for stage in stages:
        inside = graph.regions[stage.region].path.startswith("backbone")
        if inside and kept and kept[-1].region == network:
            kept[-1].ops += stage.ops
        else:
            kept.append(_Stage(network if inside else stage.region, stage.ops))
    return kept


def _joined(graph: Graph, stages: list[_Stage]) -> list[_Stage]:
    paths = [graph.regions[stage.region].path for stage in stages]
    kept: list[_Stage] = []
    waiting: list[Op] = []
    for index, stage in enumerate(stages):
        small = not _flops(stage.ops)
        inside_next = index + 1 < len(stages) and paths[index + 1].startswith(f"{paths[index]}.")
        inside_last = bool(kept) and graph.regions[kept[-1].region].path.startswith(f"{paths[index]}.")
        same_block = bool(kept) and graph.regions[kept[-1].region].block == graph.regions[stage.region].block
        if small and inside_next:
            waiting += stage.ops
        elif small and inside_last and same_block and not waiting:
            kept[-1].ops += stage.ops
        else:
            stage.ops[:0] = waiting
            waiting = []
            kept.append(stage)
    return kept


def _units(graph: Graph, stages: list[_Stage]) -> list[_Unit]:
    units: list[_Unit] = []
    for stage in stages:
        block = graph.regions[stage.region].block
        if block is not None and units and units[-1].block == block:
            units[-1].stages.append(stage)
        else:
            units.append(_Unit(block, [stage], graph.times(stage.region)))
    return units


def _folded(units: list[_Unit], graph: Graph) -> list[_Unit]:
    """Neighbours that are alike become one; so do pairs of neighbours, where two kinds of block alternate."""
    kept: list[_Unit] = []
    for unit in units:
        if kept and kept[-1].alike(unit, graph):
            kept[-1].absorb(unit)
        else:
            kept.append(unit)
        if len(kept) >= 4 and kept[-4].alike(kept[-2], graph) and kept[-3].alike(kept[-1], graph):
            for older, newer in ((kept[-4], kept[-2]), (kept[-3], kept[-1])):
                older.absorb(newer)
                older.alternates = True
            del kept[-2:]
    return kept


def _name(units: list[_Unit]) -> None:
    for number, unit in enumerate(units):
        unit.id = f"n{number}"
        for place, stage in enumerate(unit.stages):
            stage.id = f"n{number}_{place}"


def _add_backward(graph: Graph, units: list[_Unit]) -> None:
    """Backward FLOPs of a region go to the first stage that runs it."""
    homes: dict[int, _Stage] = {}
    for unit in units:
        for stage in unit.stages:
            for op in stage.ops:
                homes.setdefault(op.region, stage)
    for op in graph.ops[graph.forward_ops :]:
        if op.region in homes:
            homes[op.region].backward_flops += op.flops


def _first_readers(graph: Graph, units: list[_Unit]) -> dict[str, tuple[str, ...]]:
    """Inputs by the id of the stage that reads them first."""
    inputs = {number: r.name for number, r in enumerate(graph.residents) if r.role == "input"}
    found: dict[str, list[str]] = {}
    for unit in units:
        for stage in unit.stages:
            for op in stage.ops:
                for storage, *_ in op.inputs:
                    if storage in inputs:
                        found.setdefault(stage.id, []).append(inputs.pop(storage))
    return {stage: tuple(names) for stage, names in found.items()}


def _arrows(graph: Graph, units: list[_Unit]) -> tuple[tuple[str, str], ...]:
    """From each part to those below that read what it made; into and out of a group, its border is one end."""
    drawn = _drawn(units)
    makers: dict[int, tuple[_Unit, str]] = {}
    arrows: dict[tuple[str, str], None] = {}
    for op in graph.ops[: graph.forward_ops]:
        unit, stage = drawn[id(op)]
        for storage, *_ in op.inputs:
            made = makers.get(storage)
            if made is not None and made[1] != stage:
                same = made[0] is unit
                arrows[made[1] if same else _end(made[0]), stage if same else _end(unit)] = None
        for storage, *_ in op.outputs:
            makers[storage] = (unit, stage)
    order = {name: place for place, name in enumerate(name for unit in units for name in (unit.id, *_ids(unit)))}
    return tuple(arrow for arrow in arrows if order[arrow[0]] < order[arrow[1]])


def _drawn(units: list[_Unit]) -> dict[int, tuple[_Unit, str]]:
    """Unit and stage in which each op is drawn, by the op's identity."""
    return {
        id(op): (unit, stage.id)
        for unit in units
        for place, stage in enumerate(unit.stages)
        for op in [*stage.ops, *(unit.alike_ops[place] if unit.alike_ops else [])]
    }


def _ids(unit: _Unit) -> list[str]:
    return [stage.id for stage in unit.stages]


def _end(unit: _Unit) -> str:
    return unit.id if len(unit.stages) > 1 else unit.stages[0].id


def _unit_box(graph: Graph, unit: _Unit, firsts: dict[str, tuple[str, ...]], line_of: LineOf) -> Box:
    stages = tuple(_stage_box(graph, stage, firsts, line_of) for stage in unit.stages)
    if len(stages) == 1 and unit.times == 1:
        return stages[0]
    path = graph.regions[unit.stages[0].region].path
    name = path.partition("[")[0]
    flops = unit.times * sum(stage.flops for stage in unit.stages)
    backward = unit.times * sum(stage.backward_flops for stage in unit.stages)
    yaml = graph.yaml(_block_region(graph, unit))
    title = f"{name} × {unit.times}" if unit.times > 1 else path.rpartition("]")[0] + "]"
    if unit.alternates:
        title = f"{path.rpartition(']')[0]}] and every second after it: × {unit.times}"
    return Box(unit.id, title, (_work(flops, backward), _origin(yaml, line_of)), "group", (), stages)


def _block_region(graph: Graph, unit: _Unit) -> int:
    """The region of the block itself, of which the stages are parts."""
    first = unit.stages[0].region
    prefix = graph.regions[first].path.rpartition("]")[0] + "]"
    return next((number for number, region in enumerate(graph.regions) if region.path == prefix), first)


def _stage_box(graph: Graph, stage: _Stage, firsts: dict[str, tuple[str, ...]], line_of: LineOf) -> Box:
    path = graph.regions[stage.region].path or graph.component
    inside = path.rpartition("]")[2].lstrip(".") if graph.regions[stage.region].block is not None else path
    lines = [
        _work(stage.flops, stage.backward_flops),
        _result(stage.ops),
        _origin(graph.yaml(stage.region), line_of),
    ]
    title = inside or path
    return Box(stage.id, title, tuple(line for line in lines if line), _look(stage.ops), firsts.get(stage.id, ()))


def _work(flops: int, backward: int) -> str:
    if backward:
        return f"{quantity(flops)}FLOP forward, {quantity(backward)}FLOP backward"
    return f"{quantity(flops)}FLOP" if flops else "no matrix products"


def _result(ops: list[Op]) -> str:
    made = [op.outputs[0] for op in ops if op.outputs]
    return f"→ {layout(made[-1][1], made[-1][3].label)}" if made else ""


def _origin(path: YamlPath, line_of: LineOf) -> str:
    line = line_of(path)
    return dotted(path) + (f", line {line}" if line else "")


def _look(ops: list[Op]) -> Look:
    work: dict[Kind, int] = {}
    for op in ops:
        work[kind_of(op)] = work.get(kind_of(op), 0) + op.flops
    if "attention" in work:
        return "attention"
    if not any(work.values()):
        return "other"
    return "conv" if work.get("conv", 0) == max(work.values()) else "linear"
