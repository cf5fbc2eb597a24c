"""What must hold of every graph."""

from __future__ import annotations

from sora_spec.graph.ir import Graph


def verify(graph: Graph) -> None:
    """Assert that the schedule is sound: no op reads a tensor before it exists or after it was freed."""
    tape = graph.tape
    for index, op in enumerate(graph.ops):
        for storage, *_ in op.inputs:
            died = tape.died[storage]
            assert tape.born[storage] <= index, f"{op.name} reads a tensor that does not exist yet"
            assert died is None or died > index, f"{op.name} reads a tensor that was freed"
        for storage, shape, strides, _ in op.outputs:
            assert len(shape) == len(strides)
            assert tape.born[storage] == index
