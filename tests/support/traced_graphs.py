"""Graphs both ways: lowered, and recorded from the real module, and what tells them apart."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sora_spec.builders.trace.batches import recorded_values
from sora_spec.graph import Component, Graph, Setting, graph_from_spec
from sora_spec.graph.lower.families import LOWERED
from sora_spec.graph.traced import component as traced
from sora_spec.language.loading import spec_from_values
from sora_spec.language.schema.spec import Spec

ORIGIN = {"made": "today", "torch": "this one", "version": "this one"}


def recorded_here(spec: Spec, component: Component, setting: dict[str, Any]) -> dict[str, Any]:
    """What the tracer's process answers, without the process."""
    values = spec_from_values(spec.model_dump(mode="json"))
    return ORIGIN | recorded_values(values, component, Setting(**setting))


@contextmanager
def without_lowerings() -> Generator[None]:
    """Nothing has a lowering while the body runs."""
    with patch.dict(LOWERED, dict.fromkeys(LOWERED, ())), patch.object(traced, "recorded", recorded_here):
        yield


def both_ways(spec: Spec, component: Component, setting: Setting) -> tuple[Graph, Graph]:
    """The lowered graph and the recorded one."""
    with without_lowerings():
        recorded = graph_from_spec(spec, component, setting)
    return graph_from_spec(spec, component, setting), recorded


def differences(lowered: Graph, recorded: Graph) -> list[str]:
    """What differs, in words; names and numbers of parts, which a module tells more finely, are not compared."""
    found = [
        f"{name}: {one} and {other}"
        for name, one, other in (
            ("ops", len(lowered.ops), len(recorded.ops)),
            ("forward ops", lowered.forward_ops, recorded.forward_ops),
            ("bytes after forward", lowered.forward_live_bytes, recorded.forward_live_bytes),
            ("result", lowered.output, recorded.output),
            ("repeat", lowered.repeat, recorded.repeat),
            ("residents", residents(lowered), residents(recorded)),
            ("storages", sorted(lives(lowered)), sorted(lives(recorded))),
        )
        if one != other
    ]
    if lowered.component == "ema_step":  # see ORDER
        each = [sorted(map(shown, graph.ops), key=str) for graph in (lowered, recorded)]
        return found if each[0] == each[1] else [*found, "other copies"]
    for number, (one, other) in enumerate(zip(lowered.ops, recorded.ops, strict=False)):
        if shown(one) != shown(other):
            found.append(f"op {number}: {shown(one)} and {shown(other)}")
        blocks = [graph.regions[op.region].block for graph, op in ((lowered, one), (recorded, other))]
        if blocks[0] != blocks[1] and not lowered.regions[one.region].path.endswith("]"):  # see FRAME_POSITIONS
            found.append(f"op {number}, {one.name}, in {lowered.label(one.region)} and {recorded.label(other.region)}")
    return found


def residents(graph: Graph) -> list[Any]:
    """Shapes and roles of what is there before the first op, by block."""
    return sorted(
        (r.role, r.shape, r.nbytes, r.trained, r.persistent, f"{graph.regions[r.region].block}")
        for r in graph.residents
    )


def lives(graph: Graph) -> list[tuple[int, int, int | None]]:
    """Birth, bytes and death of every storage that an op made."""
    tape, first = graph.tape, len(graph.residents)
    return list(zip(tape.born[first:], tape.sizes[first:], tape.died[first:], strict=True))


def shown(op: Any) -> tuple[Any, ...]:
    """What an op is and does. Strides along sides of one say nothing."""
    return (
        *(op.name, op.backward, op.flops, op.read_bytes, op.written_bytes, op.live_bytes, op.workspace_bytes),
        [
            (shape, [s for n, s in zip(shape, strides, strict=True) if n != 1], kind)
            for _, shape, strides, kind in op.outputs
        ],
    )
