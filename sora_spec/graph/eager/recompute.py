"""Activation checkpointing as PyTorch's non-reentrant `torch.utils.checkpoint` does it.

In the forward pass nothing that the function saves is kept, only a ticket for each. The first ticket that the backward
pass presents runs the function again, up to the last tensor that was saved; each ticket is good once. Selective
checkpointing keeps the outputs of chosen ops and does not run those again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sora_spec.graph.eager.tape import Tape
    from sora_spec.graph.eager.tensor import Tensor


class StopRecomputationError(Exception):
    """Raised as soon as the last saved tensor is there again."""


class Holder:
    """The ticket for one saved tensor."""

    __slots__ = ("frame", "number")

    def __init__(self, frame: Frame, number: int) -> None:
        self.frame, self.number = frame, number

    def value(self) -> Tensor:
        """The tensor. Can be asked once."""
        if not self.frame.recomputed:
            self.frame.recompute()
        return self.frame.values.pop(self.number)


class Frame:
    """One checkpointed call: what is needed to run it again. Also the saver of its first run."""

    def __init__(self, tape: Tape, function: Callable[..., Tensor], arguments: tuple[object, ...]) -> None:
        self.tape, self.function, self.arguments = tape, function, arguments
        self.region = tape.region
        self.count = 0
        self.recomputed = False
        self.values: dict[int, Tensor] = {}
        self.selected: frozenset[str] = frozenset()
        self.kept: dict[str, list[tuple[Tensor, ...]]] = {}

    def pack(self, tensor: Tensor) -> Holder:
        """A ticket in place of the tensor."""
        self.count += 1
        return Holder(self, self.count - 1)

    def replay(self, name: str) -> None:
        """The first run runs everything."""
        return

    def keep(self, name: str, outputs: tuple[Tensor, ...]) -> None:
        """Keep the outputs of selected ops."""
        if name in self.selected:
            self.kept.setdefault(name, []).append(tuple([x.detach() for x in outputs]))

    def recompute(self) -> None:
        """Run the function again and gather what it saves."""
        tape = self.tape
        outer = (tape.saver, tape.grad_enabled, tape.region)
        tape.saver, tape.grad_enabled, tape.region = Replay(self), True, self.region
        try:
            self.function(*self.arguments)
        except StopRecomputationError:
            pass
        finally:
            tape.saver, tape.grad_enabled, tape.region = outer
        self.recomputed = True
        assert len(self.values) == self.count, "recomputation saved another number of tensors"


class Replay:
    """The saver of the second run."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.next = 0

    def pack(self, tensor: Tensor) -> Tensor:
        """Give the tensor to its ticket; stop after the last one."""
        detached = tensor.detach()
        self.frame.values[self.next] = detached
        self.next += 1
        if self.next == self.frame.count:
            raise StopRecomputationError
        return detached

    def replay(self, name: str) -> tuple[Tensor, ...] | None:
        """Outputs of a selected op, in the order of the first run."""
        kept = self.frame.kept.get(name)
        return kept.pop(0) if kept else None

    def keep(self, name: str, outputs: tuple[Tensor, ...]) -> None:
        """Nothing is kept twice."""


def checkpoint(tape: Tape, function: Callable[..., Tensor], *arguments: object, selected: Iterable[str] = ()) -> Tensor:
    """Call `function` without keeping what it saves; `selected` names the ops whose outputs are kept all the same."""
    if not tape.grad_enabled:
        return function(*arguments)
    frame = Frame(tape, function, arguments)
    frame.selected = frozenset(selected)
    outer, tape.saver = tape.saver, frame
    try:
        return function(*arguments)
    finally:
        tape.saver = outer
