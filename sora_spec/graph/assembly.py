"""A graph from a run: what is there before it, its forward pass, and its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.engine import backward
from sora_spec.graph.eager.layout import Shape
from sora_spec.graph.eager.ops.pointwise import unary
from sora_spec.graph.eager.tape import Tape, YamlPath
from sora_spec.graph.eager.tensor import Tensor, leaf
from sora_spec.graph.ir import Graph, Repeat, Resident, Role
from sora_spec.graph.lower.weights import Weights
from sora_spec.graph.setting import Setting

if TYPE_CHECKING:
    from sora_spec.graph.component import Component
    from sora_spec.language.schema.spec import Spec

CONDITIONS = ("labels", "context", "mask", "tokens", "null labels", "null context")


class Inputs:
    """Makes the tensors that a caller hands in."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.made: dict[str, Tensor] = {}
        self.regions: dict[str, int] = {}

    def __call__(self, name: str, shape: Shape, dtype: DType = DType.F32, yaml: YamlPath = ()) -> str:
        """Make one; its YAML path follows from its name where none is given. Returns the name."""
        with self.tape.enter(name, yaml or (("condition",) if name in CONDITIONS else ("clip",))):
            self.regions[name] = self.tape.region
        self.made[name] = leaf(self.tape, shape, dtype, name=name)
        return name

    def __getitem__(self, name: str) -> Tensor:
        return self.made[name]

    def take(self, names: list[str]) -> dict[str, Tensor]:
        """Hand tensors over to one who lets go of them."""
        return {name: self.made.pop(name) for name in names}


def assembled(
    spec: Spec,
    component: Component,
    weights: Weights,
    inputs: Inputs,
    forward: Callable[[], Tensor],
    repeat: Repeat | None,
    setting: Setting | None = None,
) -> Graph:
    """Run the forward pass, and the backward pass where the result needs a gradient."""
    tape = weights.tape
    if setting is not None and setting.accumulates:
        weights.add_gradients()
    residents = _residents(weights, inputs)
    result = forward()
    if setting is not None and setting.owned_inputs:
        inputs.made.clear()
    forward_ops, forward_live_bytes = len(tape.ops), tape.live_bytes
    output = (result.shape, result.dtype.label)
    if result.requires_grad:
        tape.backward, tape.region = True, tape.ops[-1].region
        gradient = unary("ones_like", result)
        backward(result, gradient)
        del gradient
    return Graph(spec.name, component, tape, residents, forward_ops, forward_live_bytes, output, repeat)


def _residents(weights: Weights, inputs: Inputs) -> tuple[Resident, ...]:
    made: list[tuple[Tensor, Role]] = [
        *((tensor, "parameter") for tensor in weights.parameters),
        *((tensor, "buffer") for tensor in weights.buffers),
        *((tensor, "gradient") for tensor in weights.gradients),
        *((tensor, "state") for tensor in weights.states),
        *((tensor, "input") for tensor in inputs.made.values()),
    ]
    made.sort(key=lambda pair: pair[0].storage.index)
    regions, persistent = weights.regions, weights.persistent
    return tuple(
        Resident(
            name=x.name,
            role=role,
            shape=x.shape,
            nbytes=x.storage.nbytes,
            region=inputs.regions[x.name] if role == "input" else regions.get(x.storage.index, 0),
            trained=x.requires_grad,
            persistent=x.storage.index in persistent,
        )
        for x, role in made
    )
