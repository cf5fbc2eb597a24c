"""What follows a backward pass: AdamW as `torch.optim.adamw` runs it, and the moving average of the weights.

Kernels in place make no tensor, but they move most of the bytes; they are ops without results here. A kernel over a
list of tensors (`_foreach_…`, `_fused_adamw_`) is one op for each tensor. Weights, gradients and states are float32,
whatever the arithmetic of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sora_spec.graph.eager.ops.pointwise import unary
from sora_spec.graph.eager.tape import Entered, Op, Tape
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.weights import Weights
from sora_spec.graph.setting import OptimizerKind

UPDATE, AVERAGE = ("train", "optimizer"), ("train", "ema")


class Slot:
    """A parameter, and what the optimiser keeps for it."""

    def __init__(self, weights: Weights, parameter: Tensor, gradient: Tensor) -> None:
        self.parameter, self.gradient = parameter, gradient
        self.region = weights.regions[parameter.storage.index]
        self.first = weights.state(parameter, "exp_avg", parameter.shape)
        self.second = weights.state(parameter, "exp_avg_sq", parameter.shape)
        self.step = weights.state(parameter, "step", ())


def in_place(name: str, target: Tensor, *others: Tensor, also: tuple[Tensor, ...] = ()) -> None:
    """A kernel that overwrites `target`, and `also` others, with what it makes of them and of `others`."""
    tape = target.tape
    op = Op(name, tape.region, tape.backward, 0, 0)
    for x in (target, *also, *others):
        op.inputs.append((x.storage.index, x.shape, x.strides, x.dtype))
        op.read_bytes += x.nbytes
    op.written_bytes, op.live_bytes = target.nbytes + sum(x.nbytes for x in also), tape.live_bytes
    tape.ops.append(op)


class AdamWStep:
    """One update of every trained parameter (arXiv 1711.05101)."""

    def __init__(self, weights: Weights, kind: OptimizerKind) -> None:
        self.tape, self.kind = weights.tape, kind
        weights.add_gradients()
        trained = [p for p in weights.parameters if p.requires_grad]
        self.slots = [Slot(weights, p, g) for p, g in zip(trained, weights.gradients, strict=True)]

    def __call__(self) -> None:
        match self.kind:
            case "forloop":
                self.forloop()
            case "foreach":
                self.foreach()
            case "fused":
                for slot in self.each():
                    moments = (slot.first, slot.second)
                    in_place("_fused_adamw_", slot.parameter, slot.gradient, slot.step, also=moments)

    def forloop(self) -> None:
        """One parameter after the other; the denominator of the one before lives until the next is made."""
        denominator: Tensor | None = None
        for slot in self.slots:
            with inside(self.tape, slot.region, "update"):
                in_place("add_", slot.step)
                in_place("mul_", slot.parameter)
                in_place("lerp_", slot.first, slot.gradient)
                in_place("mul_", slot.second)
                in_place("addcmul_", slot.second, slot.gradient, slot.gradient)
                denominator = unary("div", unary("sqrt", slot.second))
                in_place("add_", denominator)
                in_place("addcdiv_", slot.parameter, slot.first, denominator)
        del denominator

    def foreach(self) -> None:
        """Every kernel over all parameters; the roots of all second moments are alive together."""
        for slot in self.each():
            in_place("_foreach_add_", slot.step)
        for slot in self.each():
            in_place("_foreach_mul_", slot.parameter)
        for slot in self.each():
            in_place("_foreach_lerp_", slot.first, slot.gradient)
        for slot in self.each():
            in_place("_foreach_mul_", slot.second)
        for slot in self.each():
            in_place("_foreach_addcmul_", slot.second, slot.gradient, slot.gradient)
        roots = [unary("_foreach_sqrt", slot.second) for slot in self.each()]
        for name in ("_foreach_div_", "_foreach_add_"):
            for _, root in zip(self.each(), roots, strict=True):
                in_place(name, root)
        for slot, root in zip(self.each(), roots, strict=True):
            in_place("_foreach_addcdiv_", slot.parameter, slot.first, root)

    def each(self) -> Iterator[Slot]:
        """The slots, each while the tape is in its region."""
        for slot in self.slots:
            with inside(self.tape, slot.region, "update"):
                yield slot


class AverageStep:
    """average ← decay·average + (1 − decay)·weights; buffers that checkpoints hold are copied."""

    def __init__(self, weights: Weights) -> None:
        self.tape = weights.tape
        kept = [b for b in weights.buffers if b.storage.index in weights.persistent]
        self.pairs = [
            (weights.regions[x.storage.index], x, weights.state(x, "average", x.shape), name)
            for name, tensors in (("lerp_", weights.parameters), ("copy_", kept))
            for x in tensors
        ]

    def __call__(self) -> None:
        for region, live, average, name in self.pairs:
            with inside(self.tape, region, "average"):
                in_place(name, average, live)


def inside(tape: Tape, region: int, name: Literal["update", "average"]) -> Entered:
    """Context of the part `name` of a region."""
    return tape.enter(name, UPDATE if name == "update" else AVERAGE, outer=region)
