"""The model graph: what a component of a spec runs, op by op, without PyTorch; and exact passes over it.

    from sora_spec.graph import Setting, count, graph_from_spec, memory

    graph = graph_from_spec(spec, "denoiser_step", Setting(batch=4, precision="bf16"))
    count(graph).parameters          # equal to sum(p.numel() for p in module.parameters())
    count(graph).forward_flops       # equal to FlopCounterMode on the meta device
    memory(graph).backward_peak_bytes

Components: `text_encode` (prompts through the frozen encoder), `denoiser` (one forward pass without gradients),
`denoiser_step` (noising, forward, loss, backward), `optimizer_step` (AdamW) and `ema_step` (the moving average),
`sampler_step` (network calls under guidance, and the update), `vae_encode` and `vae_decode` (one pass without
gradients), `vae_step` (reconstruction, loss, backward). `sora-spec show SPEC --graph` prints them; docs/graph.md says
how to read that.

A `Setting` says how a component runs: batch, precision, attention kernel, recomputation, allocator rounding. Repeated
blocks are run as often as they differ, not as often as they occur (`Graph.repeat`); every pass counts them in full,
and the result equals that of the full run.

The graph is made by running the model on tensors without values (`sora_spec.graph.eager.tensor`), with PyTorch's rules
for strides, for what each derivative keeps, for the order of the backward pass and for recomputation. `builders/trace`
proves it against a trace of the real modules.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sora_spec.graph.component import COMPONENTS, Component, Setting, graph_from_spec
from sora_spec.graph.ir import Graph

if TYPE_CHECKING:
    from sora_spec.graph.passes.count import Counts, count
    from sora_spec.graph.passes.liveness import alive_after
    from sora_spec.graph.passes.memory import Memory, Term, memory, saved_for_backward
    from sora_spec.graph.passes.recomputation import Recomputation, recomputation
    from sora_spec.graph.passes.verify import verify

__all__ = [
    "COMPONENTS",
    "Component",
    "Counts",
    "Graph",
    "Memory",
    "Recomputation",
    "Setting",
    "Term",
    "alive_after",
    "count",
    "graph_from_spec",
    "memory",
    "recomputation",
    "saved_for_backward",
    "verify",
]

# The passes are imported when one is asked for: the planner needs none, and short commands feel every module.
_PASSES = {
    **dict.fromkeys(("Counts", "count"), "count"),
    **dict.fromkeys(("Memory", "Term", "memory", "saved_for_backward"), "memory"),
    "verify": "verify",
    **dict.fromkeys(("Recomputation", "recomputation"), "recomputation"),
    "alive_after": "liveness",
}


def __getattr__(name: str) -> Any:
    if name not in _PASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.passes.{_PASSES[name]}"), name)
