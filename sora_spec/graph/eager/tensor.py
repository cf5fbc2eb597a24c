"""Tensors without values, and the nodes of their autograd graph.

A `Tensor` has a storage, a shape and strides; views share the storage. Ops on tensors that need a gradient leave a
`Node`, which keeps what PyTorch's derivative keeps (`tools/autograd/derivatives.yaml`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape, contiguous_strides, is_contiguous
from sora_spec.graph.eager.recompute import Holder
from sora_spec.graph.eager.tape import Layout, Op, Storage, Tape

Grads = list["Tensor | None"]
Rule = Callable[..., "Sequence[Tensor | None]"]
"""From a node and the gradient of each of its outputs to those of its inputs. That of a single output is never None."""


class Tensor:
    """A tensor that is only its layout and its storage."""

    __slots__ = (
        "dtype",
        "grad",
        "name",
        "nbytes",
        "node",
        "numel",
        "output",
        "requires_grad",
        "shape",
        "storage",
        "strides",
    )

    def __init__(self, storage: Storage, shape: Shape, strides: Shape, dtype: DType, numel: int = -1) -> None:
        self.storage, self.shape, self.strides, self.dtype = storage, shape, strides, dtype
        self.numel = numel = prod(shape) if numel < 0 else numel
        self.nbytes = numel * dtype.size
        """Bytes of its elements, which may be fewer or more than those of its storage."""
        self.requires_grad = False
        self.node: Node | None = None
        self.output = 0
        self.grad: Tensor | None = None
        self.name = ""

    @property
    def tape(self) -> Tape:
        return self.storage.tape

    @property
    def contiguous_layout(self) -> bool:
        """Whether its elements lie in row-major order."""
        return is_contiguous(self.shape, self.strides)

    def detach(self) -> Tensor:
        """The same elements outside the autograd graph."""
        return Tensor(self.storage, self.shape, self.strides, self.dtype, self.numel)

    def alias(self, shape: Shape, strides: Shape) -> Tensor:
        """Other shape and strides over the same storage, outside the autograd graph."""
        return Tensor(self.storage, shape, strides, self.dtype)


class Edge:
    """Where the gradient of one input goes: a node's output or a leaf, with the shape and type that is expected."""

    __slots__ = ("dtype", "output", "shape", "target")

    def __init__(self, tensor: Tensor) -> None:
        self.target: Node | Tensor = tensor.node or tensor
        self.output = tensor.output
        self.shape, self.dtype = tensor.shape, tensor.dtype


class Node:
    """One backward function: its edges, what it keeps, and the rule that runs."""

    __slots__ = ("arity", "attributes", "edges", "region", "rule", "saved", "sequence", "tape")

    def __init__(self, tape: Tape, rule: Rule, inputs: Sequence[Tensor], attributes: Any) -> None:
        self.tape, self.rule, self.region = tape, rule, tape.region
        self.attributes = attributes
        """What the rule needs beside tensors."""
        self.edges = [Edge(x) if x.requires_grad else None for x in inputs]
        self.saved: list[object] = []
        self.sequence = tape.sequence
        self.arity = 1
        tape.sequence += 1

    def save(self, *tensors: Tensor | None) -> None:
        """Keep tensors for the backward pass; None stands for one that is not needed."""
        saver = self.tape.saver
        for tensor in tensors:
            if tensor is None:
                self.saved.append(None)
            else:
                self.saved.append(tensor.detach() if saver is None else saver.pack(tensor))

    def needs(self, index: int) -> bool:
        """Whether the gradient of input `index` is wanted."""
        return self.edges[index] is not None

    def unpack(self) -> list[Tensor]:
        """What was kept, recomputed where it must be. A value that was not kept is None and must not be used."""
        return [cast(Tensor, x.value() if isinstance(x, Holder) else x) for x in self.saved]


def leaf(tape: Tape, shape: Shape, dtype: DType, requires_grad: bool = False, name: str = "") -> Tensor:
    """A parameter, buffer or input: a contiguous tensor that no op made."""
    tensor = Tensor(tape.allocate(prod(shape), dtype), shape, contiguous_strides(shape), dtype)
    tensor.requires_grad, tensor.name = requires_grad, name
    return tensor


def node_for(rule: Rule, inputs: Sequence[Tensor], attributes: Any = None) -> Node | None:
    """A node for an op over `inputs`, or None when no gradient is wanted."""
    tape = inputs[0].storage.tape
    if tape.grad_enabled:
        for x in inputs:
            if x.requires_grad:
                return Node(tape, rule, inputs, attributes)
    return None


def attach(node: Node | None, output: Tensor, number: int = 0) -> Tensor:
    """Make `output` the result `number` of `node`."""
    if node is not None:
        output.node, output.output, output.requires_grad = node, number, True
    return output


def run(
    name: str, inputs: Sequence[Tensor], outputs: Sequence[Layout], flops: int = 0, workspace_bytes: int = 0
) -> tuple[Tensor, ...]:
    """Run a kernel: new tensors with the given layouts. Not differentiable by itself; see `attach`."""
    tape = inputs[0].storage.tape
    saver = tape.saver
    if saver is not None:
        kept = saver.replay(name)
        if kept is not None:
            return kept
    op = Op(name, tape.region, tape.backward, flops, workspace_bytes)
    made: list[Tensor] = []
    for shape, strides, dtype in outputs:
        numel = prod(shape)
        tensor = Tensor(tape.allocate(numel, dtype), shape, strides, dtype, numel)
        op.outputs.append((tensor.storage.index, shape, strides, dtype))
        op.written_bytes += tensor.nbytes
        made.append(tensor)
    for x in inputs:
        op.inputs.append((x.storage.index, x.shape, x.strides, x.dtype))
        op.read_bytes += x.nbytes
    op.live_bytes = tape.live_bytes
    tape.ops.append(op)
    results = tuple(made)
    if saver is not None:
        saver.keep(name, results)
    return results


def run_one(name: str, inputs: Sequence[Tensor], shape: Shape, strides: Shape, dtype: DType, flops: int = 0) -> Tensor:
    """`run` for a kernel with one result."""
    return run(name, inputs, ((shape, strides, dtype),), flops)[0]
