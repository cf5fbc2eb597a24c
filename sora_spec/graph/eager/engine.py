"""The backward pass in the order and with the lifetimes of PyTorch's engine (`torch/csrc/autograd/engine.cpp`).

Nodes run by descending sequence number once all gradients of their outputs are there; leaves take theirs at once. A
node's tensors are released when it has run, before its results are passed on.
"""

from __future__ import annotations

import sys
from heapq import heappop, heappush

from sora_spec.graph.eager.layout import is_dense, same_places
from sora_spec.graph.eager.ops.pointwise import accumulate, cast_to
from sora_spec.graph.eager.ops.reduction import sum_to
from sora_spec.graph.eager.tensor import Edge, Grads, Node, Tensor, run_one


def backward(root: Tensor, gradient: Tensor) -> None:
    """Propagate `gradient` from `root` to every leaf that wants one, into `leaf.grad`."""
    assert root.node is not None, "the root needs no gradient"
    tape = root.tape
    outer, tape.backward, tape.grad_enabled = (tape.backward, tape.grad_enabled), True, False
    try:
        _Pass(root.node).start(gradient)
    finally:
        tape.backward, tape.grad_enabled = outer


class _Pass:
    """One backward pass."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.waiting = _dependencies(root)
        self.buffers: dict[int, Grads] = {}
        self.ready: list[tuple[int, int, Node]] = []
        self.order = 0

    def start(self, gradient: Tensor) -> None:
        buffer: Grads = [None] * self.root.arity
        buffer[0] = gradient
        self.buffers[id(self.root)] = buffer
        del buffer, gradient
        self._push(self.root)
        while self.ready:
            self._evaluate(heappop(self.ready)[2])

    def _push(self, node: Node) -> None:
        heappush(self.ready, (-node.sequence, self.order, node))
        self.order += 1

    def _evaluate(self, node: Node) -> None:
        node.tape.region = node.region
        outputs = _call(node, self.buffers.pop(id(node)))
        node.saved = []
        for number, edge in enumerate(node.edges):
            gradient, outputs[number] = outputs[number], None
            if edge is not None:
                self._deliver(edge, gradient)
            del gradient

    def _deliver(self, edge: Edge, gradient: Tensor | None) -> None:
        target = edge.target
        key = id(target)
        arity = target.arity if isinstance(target, Node) else 1
        buffer = self.buffers.setdefault(key, [None] * arity)
        if gradient is not None:
            held, buffer[edge.output] = buffer[edge.output], None
            if held is not None:
                # References of each: the name here, and the argument of getrefcount.
                reusable = sys.getrefcount(held) == 2 and sys.getrefcount(held.storage) == 2
                gradient = accumulate(held, gradient, reusable and is_dense(held.shape, held.strides))
                del held
            buffer[edge.output] = gradient
            del gradient
        self.waiting[key] -= 1
        if self.waiting[key] == 0:
            if isinstance(target, Node):
                self._push(target)
            else:
                _accumulate_leaf(target, self.buffers.pop(key))


def _call(node: Node, gradients: Grads) -> list[Tensor | None]:
    """Run the rule and fit each result to the input it belongs to."""
    if all(g is None for g in gradients):
        return [None] * len(node.edges)
    outputs = list(node.rule(node, *gradients))
    for number, edge in enumerate(node.edges):
        gradient = outputs[number]
        if edge is None or gradient is None:
            outputs[number] = None
            continue
        if gradient.shape != edge.shape:
            gradient = outputs[number] = sum_to(gradient, edge.shape)
        if gradient.dtype != edge.dtype:
            outputs[number] = cast_to(gradient, edge.dtype)
        del gradient
    return outputs


def _accumulate_leaf(target: Tensor, gradients: Grads) -> None:
    gradient = gradients[0]
    gradients.clear()
    if gradient is None:
        return
    if target.grad is None:
        # Taken over as it is when it lies in memory like the parameter; otherwise copied into the parameter's layout.
        target.grad = (
            gradient if same_places(target.shape, gradient.strides, target.strides) else _copied(gradient, target)
        )
    else:
        target.grad = accumulate(target.grad, gradient, in_place=True)


def _copied(gradient: Tensor, target: Tensor) -> Tensor:
    """A copy of a gradient in the layout of its parameter."""
    return run_one("new_empty_strided", (gradient,), target.shape, target.strides, gradient.dtype)


def _dependencies(root: Node) -> dict[int, int]:
    """Number of gradients that each node and leaf will receive."""
    counts: dict[int, int] = {}
    seen = {id(root)}
    stack: list[Node] = [root]
    while stack:
        node = stack.pop()
        for edge in node.edges:
            if edge is None:
                continue
            key = id(edge.target)
            counts[key] = counts.get(key, 0) + 1
            if key not in seen and isinstance(edge.target, Node):
                seen.add(key)
                stack.append(edge.target)
    return counts
