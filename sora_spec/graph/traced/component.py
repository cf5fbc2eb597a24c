"""The graph of a component without a lowering: its recording at any batch, every alike block once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.tape import Tape, Use
from sora_spec.graph.eager.tensor import Tensor, run
from sora_spec.graph.ir import Graph, Repeat
from sora_spec.graph.lower.weights import Weights
from sora_spec.graph.setting import Setting
from sora_spec.graph.traced.recording import graph_of
from sora_spec.graph.traced.tracer import recorded

if TYPE_CHECKING:
    from sora_spec.graph.component import Component
    from sora_spec.language.schema.spec import Spec

_EVERY = ("precision", "attention", "temporal_attention", "fused_rms_norm", "observed")
_STEPS = ("recompute", "selected", "owned_inputs", "accumulates")


def traced_graph(
    spec: Spec, component: Component, setting: Setting, blocks: int = 0, repeat: Repeat | None = None
) -> Graph:
    """The graph of a pass over one module. `blocks`: how many of a network's are run; the spec's number where 0.

    Raises UserError where it cannot be recorded.
    """
    if setting.sequence > 1:
        raise UserError(
            f"{spec.name}: {component} has no lowering, and sequence parallelism is planned for those that have one",
            "parallel.sequence=1",
        )
    if blocks:
        spec = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"depth": blocks})})
    return graph_of(recorded(spec, component, _asked(component, setting)), spec.name, component, setting, repeat)


def _asked(component: Component, setting: Setting) -> dict[str, Any]:
    """The fields of a setting that change a recording; the rest is arithmetic on it."""
    found = {name: getattr(setting, name) for name in _EVERY}
    if component.endswith("_step"):
        found |= {name: getattr(setting, name) for name in _STEPS}
        if setting.recompute != "selective":
            del found["selected"]
    return found | {"batch": 1 if setting.batch == 1 else 2}


class TracedDenoiser:
    """A network on tensors without values: its weights, and the ops of its recorded forward pass."""

    def __init__(self, weights: Weights, spec: Spec, setting: Setting, blocks: int) -> None:
        self.tape, self.spec, self.blocks = weights.tape, spec, blocks
        self.setting = replace(setting, rounding=1)
        self.graph = self._graph(self.setting.batch)
        self.held: dict[int, Tensor] = {}
        for number, resident in enumerate(self.graph.residents):
            if resident.role == "input":
                continue
            with self._part(self.tape, resident.region):
                if resident.role == "parameter":
                    self.held[number] = weights.parameter(resident.name, resident.shape)
                else:
                    kind = next(k for k in (DType.F32, DType.BF16) if k.size * resident.numel == resident.nbytes)
                    self.held[number] = weights.buffer(resident.name, resident.shape, kind, resident.persistent)

    def _graph(self, batch: int) -> Graph:
        return traced_graph(self.spec, "denoiser", replace(self.setting, batch=batch), self.blocks)

    def _part(self, tape: Tape, region: int) -> Any:
        found = self.graph.regions[region]
        return tape.enter(found.path, found.yaml, found.block, outer=0)

    def __call__(self, *given: Tensor | None) -> Tensor:
        """(B, C, F, H, W), (B,), a condition and the mask of its tokens → (B, Cout, F, H, W)."""
        tensors = [x for x in given if x is not None]
        graph = self.graph if tensors[0].shape[0] == self.setting.batch else self._graph(tensors[0].shape[0])
        inputs = [number for number, resident in enumerate(graph.residents) if resident.role == "input"]
        alive = self.held | dict(zip(inputs, tensors, strict=True))
        deaths: dict[int, list[int]] = {}
        for number, died in enumerate(graph.tape.died):
            if died is not None and died < len(graph.ops):
                deaths.setdefault(died, []).append(number)
        for index, op in enumerate(graph.ops):
            for number in deaths.get(index, ()):
                alive.pop(number, None)
            given_now = [_seen(alive[use[0]], use) for use in op.inputs if use[0] in alive]
            with self._part(self.tape, op.region):
                layouts = [use[1:] for use in op.outputs]
                made = run(op.name, given_now or [tensors[0]], layouts, op.flops, op.workspace_bytes)
            self.tape.ops[-1].read_bytes = op.read_bytes
            alive.update(zip([use[0] for use in op.outputs], made, strict=True))
            del given_now, made
        assert graph.result is not None
        return _seen(alive[graph.result[0]], graph.result)


def _seen(tensor: Tensor, use: Use) -> Tensor:
    """The storage of a tensor in the layout in which an op uses it."""
    return Tensor(tensor.storage, use[1], use[2], use[3])
