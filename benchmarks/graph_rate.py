"""How many model graphs a core makes and measures in a second, and what depth costs.

    python benchmarks/graph_rate.py

CPU time of this process, so that a busy machine does not matter. Caches of layouts are kept, graphs are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sora_spec.graph import Component, Setting, count, graph_from_spec, memory
from sora_spec.language.loading import load_spec

ROUNDS = 30


def seconds_of(work: Callable[[int], object]) -> float:
    """CPU seconds of one call, its argument never the same twice."""
    work(0)
    start = time.process_time()
    for round_ in range(1, ROUNDS + 1):
        work(round_)
    return (time.process_time() - start) / ROUNDS


def measure(name: str, component: Component, overrides: list[str]) -> tuple[float, int]:
    """CPU seconds of graph, counts and memory at a batch that always changes, and the ops of the graph."""
    spec = load_spec(name, overrides)

    def plan(round_: int) -> int:
        graph = graph_from_spec(spec, component, Setting(batch=2 + round_, precision="bf16", rounding=512))
        count(graph)
        memory(graph, itemise=False)
        return len(graph.ops)

    return seconds_of(plan), plan(1)


def main() -> None:
    """Print a table."""
    rows: list[tuple[str, Component, list[str]]] = [
        ("dit", "denoiser", []),
        ("dit", "denoiser_step", []),
        ("dit", "denoiser_step", ["backbone.depth=4"]),
        ("dit", "denoiser_step", ["backbone.depth=280"]),
        ("dit", "denoiser_step", ["train.recompute.kind=blocks"]),
        ("latte", "denoiser_step", []),
        ("dit", "optimizer_step", []),
        ("dit", "sampler_step", []),
        ("sit", "sampler_step", ["sampler={kind: dopri5, guidance: 4}"]),
        ("opendit-video", "text_encode", []),
        ("dit", "vae_encode", []),
        ("dit", "vae_decode", []),
    ]
    print(f"{'spec':<14}{'component':<16}{'change':<38}{'ops':>6}{'ms':>9}{'a second':>10}")
    for name, component, overrides in rows:
        seconds, ops = measure(name, component, overrides)
        change = " ".join(overrides) or "-"
        print(f"{name:<14}{component:<16}{change:<38}{ops:>6}{1e3 * seconds:>9.2f}{1 / seconds:>10.0f}")


if __name__ == "__main__":
    main()
