"""A model graph as plain values: the stable form that scripts read (`specs/graph.schema.json`)."""

from __future__ import annotations

from typing import Any

from sora_spec.graph.eager.tape import Op, Use
from sora_spec.graph.ir import Graph, kind_of
from sora_spec.graph.passes.count import count
from sora_spec.graph.passes.liveness import alive_after
from sora_spec.graph.passes.memory import memory
from sora_spec.graph.show.printing import LineOf, dotted, no_lines

CONTRACT = 1
"""Version of the form. Keys are added without raising it, and never renamed or removed."""


def graph_values(graph: Graph, line_of: LineOf = no_lines) -> dict[str, Any]:
    """Everything that a graph holds.

    Bytes and FLOPs of ops and tensors are those of one copy of their region; `live_bytes` is what is alive after the
    first copy of an op, in the whole graph.
    """
    counts, held = count(graph), memory(graph, itemise=False)
    return {
        "contract": CONTRACT,
        "name": graph.name,
        "component": graph.component,
        "output": {"shape": list(graph.output[0]), "dtype": graph.output[1]},
        "totals": {
            "parameters": counts.parameters,
            "forward_flops": counts.forward_flops,
            "backward_flops": counts.backward_flops,
            "forward_macs": counts.forward_macs,
            "saved_for_backward_bytes": held.forward_live_bytes if graph.forward_ops < len(graph.ops) else 0,
            "resident_bytes": held.resident_bytes,
            "peak_bytes": held.peak_bytes,
        },
        "regions": [_region(graph, number, line_of) for number in range(len(graph.regions))],
        "residents": [
            {
                "id": number,
                "name": r.name,
                "role": r.role,
                "shape": list(r.shape),
                "bytes": r.nbytes,
                "region": r.region,
                "trained": r.trained,
                **_origin(graph, r.region, line_of),
            }
            for number, r in enumerate(graph.residents)
        ],
        "ops": [_op(graph, op, alive, line_of) for op, alive in zip(graph.ops, alive_after(graph), strict=True)],
    }


def _region(graph: Graph, number: int, line_of: LineOf) -> dict[str, Any]:
    return {"path": graph.label(number), "repeat": graph.times(number), **_origin(graph, number, line_of)}


def _origin(graph: Graph, region: int, line_of: LineOf) -> dict[str, Any]:
    path = graph.yaml(region)
    return {"yaml": dotted(path), "line": line_of(path)}


def _op(graph: Graph, op: Op, alive: int, line_of: LineOf) -> dict[str, Any]:
    return {
        "op": op.name,
        "kind": kind_of(op),
        "region": op.region,
        "backward": op.backward,
        "flops": op.flops,
        "read_bytes": op.read_bytes,
        "written_bytes": op.written_bytes,
        "workspace_bytes": op.workspace_bytes,
        "live_bytes": alive,
        "inputs": [_use(use) for use in op.inputs],
        "outputs": [_use(use) for use in op.outputs],
        **_origin(graph, op.region, line_of),
    }


def _use(use: Use) -> dict[str, Any]:
    storage, shape, strides, dtype = use
    return {"id": storage, "shape": list(shape), "strides": list(strides), "dtype": dtype.label}
