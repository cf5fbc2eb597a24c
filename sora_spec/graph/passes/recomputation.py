"""What recomputation removes and what it adds, part by part of the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sora_spec.graph.eager.tape import YamlPath
from sora_spec.graph.ir import Graph
from sora_spec.graph.passes.count import count
from sora_spec.graph.passes.memory import collapsed_path, memory, saved_for_backward


@dataclass(frozen=True)
class Trade:
    """One part of the model, all blocks together."""

    region: str
    yaml: YamlPath
    removed_bytes: int
    """What it no longer keeps for the backward pass; negative where it keeps more, as a checkpoint keeps its input."""
    added_flops: int
    """What its backward pass computes again."""


@dataclass(frozen=True)
class Recomputation:
    """A training step with recomputation against the same step without."""

    trades: tuple[Trade, ...]
    """The largest first; parts in which nothing changes are left out."""
    saved_bytes: tuple[int, int]
    """Kept for the backward pass, without and with."""
    peak_bytes: tuple[int, int]
    """Most bytes alive at once, without and with."""
    flops: tuple[int, int]
    """Of forward and backward, without and with."""

    @property
    def removed_bytes(self) -> int:
        """What is no longer kept."""
        return self.saved_bytes[0] - self.saved_bytes[1]

    @property
    def added_flops(self) -> int:
        """What is computed a second time."""
        return self.flops[1] - self.flops[0]


def recomputation(without: Graph, with_: Graph) -> Recomputation:
    """Compare two graphs of one training step that differ in `Setting.recompute` alone."""
    assert without.component == with_.component, "these are different components"
    saved, work = (_saved(without), _saved(with_)), (_backward_flops(without), _backward_flops(with_))
    yaml = {**_yaml(without), **_yaml(with_)}
    trades = [
        Trade(region, yaml[region], saved[0][region] - saved[1][region], work[1][region] - work[0][region])
        for region in yaml
    ]
    changed = [trade for trade in trades if trade.removed_bytes or trade.added_flops]
    held = memory(without, itemise=False), memory(with_, itemise=False)
    counts = count(without), count(with_)
    return Recomputation(
        trades=tuple(sorted(changed, key=lambda trade: (-abs(trade.removed_bytes), -trade.added_flops))),
        saved_bytes=(held[0].forward_live_bytes, held[1].forward_live_bytes),
        peak_bytes=(held[0].peak_bytes, held[1].peak_bytes),
        flops=(counts[0].flops, counts[1].flops),
    )


def _saved(graph: Graph) -> Counter[str]:
    found = Counter[str]()
    for term in saved_for_backward(graph):
        found[term.region] += term.nbytes
    return found


def _backward_flops(graph: Graph) -> Counter[str]:
    found = Counter[str]()
    for op in graph.ops:
        if op.backward:
            found[collapsed_path(graph, op.region)] += op.flops * graph.times(op.region)
    return found


def _yaml(graph: Graph) -> dict[str, YamlPath]:
    return {collapsed_path(graph, number): graph.yaml(number) for number in range(len(graph.regions))}
