"""Parameters, floating-point operations, and bytes moved."""

from __future__ import annotations

from dataclasses import dataclass, field

from sora_spec.graph.ir import Graph, Kind, kind_of


@dataclass
class Work:
    """What one kind of op does."""

    ops: int = 0
    flops: int = 0
    moved_bytes: int = 0
    """Bytes read and written if nothing stayed in a cache."""


@dataclass
class Counts:
    """FLOPs count a multiply-accumulate as 2, and matrix kinds only, as PyTorch's counter does."""

    parameters: int = 0
    """Trained and frozen parameters, without buffers."""
    forward_flops: int = 0
    backward_flops: int = 0
    """Of the backward pass, recomputation included; 0 for a component without one."""
    forward: dict[Kind, Work] = field(default_factory=dict[Kind, Work])
    backward: dict[Kind, Work] = field(default_factory=dict[Kind, Work])

    @property
    def forward_macs(self) -> int:
        """Multiply-accumulates of the forward pass: what papers on image transformers call FLOPs."""
        return self.forward_flops // 2

    @property
    def flops(self) -> int:
        """Of forward and backward."""
        return self.forward_flops + self.backward_flops


def count(graph: Graph) -> Counts:
    """Count a whole graph, repeats included."""
    counts = Counts()
    times = [graph.times(region) for region in range(len(graph.regions))]
    counts.parameters = sum(r.numel * times[r.region] for r in graph.residents if r.role == "parameter")
    for op in graph.ops:
        n, kind = times[op.region], kind_of(op)
        works = counts.backward if op.backward else counts.forward
        work = works.get(kind)
        if work is None:
            work = works[kind] = Work()
        work.ops += n
        work.flops += n * op.flops
        work.moved_bytes += n * (op.read_bytes + op.written_bytes)
    counts.forward_flops = sum(work.flops for work in counts.forward.values())
    counts.backward_flops = sum(work.flops for work in counts.backward.values())
    return counts
