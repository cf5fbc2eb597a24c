"""Bytes alive after each op of a whole graph, repeats included."""

from __future__ import annotations

from sora_spec.graph.ir import Graph


def alive_after(graph: Graph) -> list[int]:
    """Bytes alive once each op has run, residents of all blocks included; in a repeated region, in its first copy."""
    copies = graph.repeat.times - 1 if graph.repeat is not None else 0
    shift = sum(r.nbytes * (graph.times(r.region) - 1) for r in graph.residents)
    found = [op.live_bytes + shift for op in graph.ops]
    for run in graph.runs:
        gained = copies * (graph.level_before(run.end) - graph.level_before(run.start))
        for index in range(run.end, len(found)):
            found[index] += gained
    return found
