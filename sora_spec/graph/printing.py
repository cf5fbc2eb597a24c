"""A model graph as text, as JSON, and as a Mermaid diagram."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sora_spec.graph.ir import Graph, kind_of
from sora_spec.graph.tape import Op, Use


def graph_text(graph: Graph) -> str:
    """One line for each op under the path of its part, residents first."""
    lines = [f"graph {graph.name}.{graph.component}"]
    for number, resident in enumerate(graph.residents):
        shape = "x".join(map(str, resident.shape)) or "scalar"
        times = _times(graph, resident.region)
        lines.append(f"  %{number} = {resident.role} {resident.name} {shape}, {resident.nbytes:,} bytes{times}")
    region = backward = None
    for op in graph.ops:
        if (op.region, op.backward) != (region, backward):
            region, backward = op.region, op.backward
            path = ".".join(str(part) for part in graph.yaml(region))
            label = graph.label(region) or "step"
            lines.append(f"{'backward of ' if backward else ''}{label}  # {path}{_times(graph, region)}")
        lines.append(f"  {_line(op)}")
    return "\n".join(lines)


def _times(graph: Graph, region: int) -> str:
    times = graph.times(region)
    return f", repeat {times} times" if times > 1 else ""


def _line(op: Op) -> str:
    made = ", ".join(_use(use) for use in op.outputs)
    read = ", ".join(f"%{use[0]}" for use in op.inputs)
    flops = f"; {op.flops:,} FLOPs" if op.flops else ""
    return f"{made} = {op.name}({read}){flops}"


def _use(use: Use) -> str:
    storage, shape, _, dtype = use
    return f"%{storage} {dtype.label}[{', '.join(map(str, shape))}]"


def graph_json(graph: Graph) -> str:
    """Everything a graph holds. Byte and FLOP counts of a repeated region are those of one copy."""
    return json.dumps(graph_values(graph), indent=1)


def graph_values(graph: Graph) -> dict[str, Any]:
    """The graph as plain values, for JSON."""
    return {
        "name": graph.name,
        "component": graph.component,
        "output": {"shape": graph.output[0], "dtype": graph.output[1]},
        "regions": [
            {"path": graph.label(number), "yaml": graph.yaml(number), "repeat": graph.times(number)}
            for number in range(len(graph.regions))
        ],
        "residents": [
            {"id": number, "name": r.name, "role": r.role, "shape": r.shape, "bytes": r.nbytes, "region": r.region}
            for number, r in enumerate(graph.residents)
        ],
        "ops": [_op_values(op) for op in graph.ops],
    }


def _op_values(op: Op) -> dict[str, Any]:
    return {
        "op": op.name,
        "kind": kind_of(op),
        "region": op.region,
        "backward": op.backward,
        "flops": op.flops,
        "read_bytes": op.read_bytes,
        "written_bytes": op.written_bytes,
        "live_bytes": op.live_bytes,
        "inputs": [_use_values(use) for use in op.inputs],
        "outputs": [_use_values(use) for use in op.outputs],
    }


def _use_values(use: Use) -> dict[str, Any]:
    storage, shape, strides, dtype = use
    return {"id": storage, "shape": shape, "strides": strides, "dtype": dtype.label}


def graph_mermaid(graph: Graph) -> str:
    """Parts of the forward pass in the order in which they run, with their work, as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    before: int | None = None
    for node, (region, flops, ops) in enumerate(_stretches(graph)):
        label = graph.label(region) or graph.component
        times = graph.times(region)
        repeat = f" × {times}" if times > 1 else ""
        lines.append(f'  n{node}["{label}{repeat}<br/>{ops} ops, {flops / 1e9:,.2f} GFLOPs"]')
        if before is not None:
            lines.append(f"  n{before} --> n{node}")
        before = node
    return "\n".join(lines)


def _stretches(graph: Graph) -> Iterator[tuple[int, int, int]]:
    """Region, FLOPs of one copy and number of ops of each stretch of the forward pass."""
    region: int | None = None
    flops = ops = 0
    for op in graph.ops[: graph.forward_ops]:
        if region is not None and op.region != region:
            yield region, flops, ops
            flops = ops = 0
        region = op.region
        flops, ops = flops + op.flops, ops + 1
    if region is not None:
        yield region, flops, ops
