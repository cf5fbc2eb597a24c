"""What FSDP2 leaves on each rank, and what it sends.

Weights are gathered unit by unit: every block is one, and what lies outside the blocks is the root. The passes below
retell the life of a unit as `torch/distributed/fsdp/_fully_shard` has it (PyTorch 2.13): when its weights are gathered,
which buffers that takes and until when, and how its gradients are reduced. Activations are not counted here; see
`sora_spec.plan.memory.sharded` for both together. Legend: `W` ranks that share a unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from sora_spec.graph.ir import Graph

MASTER = 4
"""Bytes of an element of weights, reduced gradients, moments and average: float32, whatever computes."""


@dataclass(frozen=True)
class Sharding:
    """How the weights of a module are cut and gathered."""

    ranks: int = 1
    """W: every tensor is cut along its first dimension, padded to a multiple of W."""
    replicas: int = 1
    """Groups that hold the same shards, whose gradients are summed after those of a group."""
    element: int = 4
    """Bytes of an element of gathered weights and of their gradients: 2 in bf16, 4 in fp32."""
    reshard: bool = True
    """Whether a block's weights are freed after its forward pass, and gathered again for the backward pass."""
    offload: bool = False
    """Whether shards, reduced gradients and optimiser states lie in host memory."""
    accumulates: bool = False
    """Whether reduced gradients of an earlier pass are there from the start."""
    on_cpu: bool = False
    """Whether gradients are lined up for their reduction by the CPU's kernel, which makes copies of some."""
    rounding: int = 1
    """Every storage takes a multiple of so many bytes."""

    def rounded(self, nbytes: int) -> int:
        """Bytes that the allocator hands out."""
        return -(-nbytes // self.rounding) * self.rounding


@dataclass(frozen=True)
class Unit:
    """Bytes of the weights that are gathered together, at every stage of their life."""

    parts: tuple[int, ...]
    """Elements of one rank's padded part, by tensor."""
    shard: int
    """This rank's part in fp32."""
    whole: int
    """Gathered, in the type that computes."""
    buffer: int
    """What an all-gather writes, before it is copied into place; nothing where W is 1."""
    staging: int
    """This rank's part in the type that computes, while it is copied into that buffer."""
    reduce_input: int
    """Gradients in fp32, in the order of the ranks."""
    reduce_output: int
    """This rank's part of their mean."""
    composing: int
    """What lining them up allocates and frees again."""


def unit_of(shapes: Iterable[tuple[int, ...]], sharding: Sharding) -> Unit:
    """The unit of tensors with these shapes."""
    ranks, element, rounded = sharding.ranks, sharding.element, sharding.rounded
    shapes = tuple(shapes)
    parts = tuple([part_numel(shape, ranks) for shape in shapes])
    total = sum(parts)
    return Unit(
        parts=parts,
        shard=sum([rounded(MASTER * part) for part in parts]),
        whole=sum([rounded(element * ranks * part) for part in parts]),
        buffer=rounded(element * ranks * total) if ranks > 1 else 0,
        staging=_staging(parts, sharding) if ranks > 1 else _conversion(parts, sharding),
        reduce_input=rounded(MASTER * ranks * total),
        reduce_output=rounded(MASTER * total),
        composing=_composing(shapes, parts, sharding) if sharding.on_cpu else 0,
    )


def _staging(parts: tuple[int, ...], sharding: Sharding) -> int:
    """Before an all-gather: all parts in one tensor of the type that computes; from the host they come one by one."""
    converts, rounded = sharding.element != MASTER, sharding.rounded
    if sharding.offload:
        arriving = rounded(MASTER * max(parts, default=0)) if converts else 0
        return sum([rounded(sharding.element * part) for part in parts]) + arriving
    return rounded(sharding.element * sum(parts)) if converts else 0


def _conversion(parts: tuple[int, ...], sharding: Sharding) -> int:
    """On one rank every tensor is copied by itself: by how much the highest moment of that exceeds all copies.

    A tensor of another type, or from the host, exists beside its copy, and until the next one is made.
    """
    converts, rounded = sharding.element != MASTER, sharding.rounded
    if not (converts or sharding.offload):
        return 0
    copies = [rounded(sharding.element * part) for part in parts]
    done = highest = before = 0
    for part, copy in zip(parts, copies, strict=True):
        arriving = rounded(MASTER * part) if converts and sharding.offload else 0
        highest = max(highest, done + before + copy + arriving, done + 2 * copy)
        done, before = done + copy, copy
    return highest - done


def _composing(shapes: tuple[tuple[int, ...], ...], parts: tuple[int, ...], sharding: Sharding) -> int:
    """ATen's `_chunk_cat` on the CPU pads what does not divide evenly, and converts one tensor after the other."""
    ranks, rounded = sharding.ranks, sharding.rounded
    wholes = [rounded(sharding.element * ranks * part) for part in parts]
    uneven = [whole for shape, whole in zip(shapes, wholes, strict=True) if shape and shape[0] % ranks]
    return sum(uneven) + (max(wholes, default=0) if sharding.element != MASTER else 0)


def part_numel(shape: tuple[int, ...], ranks: int) -> int:
    """Elements of one rank's padded part."""
    if not shape:
        return 1
    return -(-shape[0] // ranks) * prod(shape[1:])


@dataclass(frozen=True)
class Units:
    """A module as FSDP2 sees it. Blocks are numbered as in the graph, without repeats."""

    root: Unit
    blocks: dict[int, Unit]


def units_of(graph: Graph, sharding: Sharding) -> Units:
    """The root and the blocks of a graph."""
    shapes: dict[int | None, list[tuple[int, ...]]] = {None: []}
    for resident in graph.residents:
        if resident.role == "parameter":
            shapes.setdefault(graph.regions[resident.region].block, []).append(resident.shape)
    found = {block: unit_of(own, sharding) for block, own in shapes.items()}
    return Units(found.pop(None), {block: unit for block, unit in found.items() if block is not None})


class Copies(NamedTuple):
    """Copies of a series of blocks that are passed over, between two copies of it that are visited."""

    blocks: tuple[int, ...]
    times: int


Order = Sequence[int | Copies]
"""Blocks of the forward pass in order. What is held differs evenly from copy to copy of a series, so that the copies in
between need not be visited one by one."""


def _times(order: Order) -> Counter[int]:
    """How often each block runs."""
    found = Counter[int]()
    for step in order:
        blocks, times = step if isinstance(step, Copies) else ((step,), 1)
        for block in blocks:
            found[block] += times
    return found


class Held(NamedTuple):
    """Bytes that FSDP2 holds on the device at one moment, the shards of the weights aside."""

    gathered: int
    """Weights that are whole."""
    gathering: int
    """Buffers of all-gathers, and what is copied into them."""
    reducing: int
    """Inputs of reduce-scatters."""
    gradients: int
    """Reduced gradients."""

    @property
    def total(self) -> int:
        return self.gathered + self.gathering + self.reducing + self.gradients


@dataclass(frozen=True)
class Visit:
    """One pass through one unit."""

    block: int | None
    """None: outside the blocks."""
    backward: bool
    entering: tuple[Held, ...]
    """Moments before its first op: its weights and the next unit's are on their way."""
    during: Held
    """While its ops run."""
    copying: Held | None = None
    """After its last op, while its whole gradients are lined up for the reduction."""
    reducing: Held | None = None
    """While they are reduced; the whole ones are gone."""


class _Device:
    """What is held, as it comes and goes."""

    def __init__(self, sharding: Sharding, units: Units, order: Order) -> None:
        self.sharding = sharding
        self.gathered = self.gathering = self.reducing = 0
        blocks = sum(units.blocks[block].reduce_output * times for block, times in _times(order).items())
        everything = units.root.reduce_output + blocks
        self.gradients = everything if sharding.accumulates and not sharding.offload else 0

    def held(self, staging: int = 0, output: int = 0) -> Held:
        return Held(self.gathered, self.gathering + staging, self.reducing, self.gradients + output)

    def gather(self, unit: Unit) -> Held:
        """Copy in and exchange."""
        self.gathering += unit.buffer
        return self.held(unit.staging if self.sharding.ranks > 1 else 0)

    def copy_out(self, unit: Unit) -> Held:
        """Put what came in place; on one rank the shard is copied as it is."""
        self.gathered += unit.whole
        return self.held(unit.staging if self.sharding.ranks == 1 else 0)

    def reduce(self, unit: Unit) -> tuple[Held, Held]:
        """Free the weights and the reduction before, and send this unit's gradients."""
        self.gathered -= unit.whole
        self.reducing = unit.reduce_input
        copying = self.held()._replace(reducing=unit.reduce_input + unit.composing)
        reducing = self.held(output=unit.reduce_output)
        if self.keeps_gradients:
            self.gradients += unit.reduce_output
        return copying, reducing

    @property
    def keeps_gradients(self) -> bool:
        """Whether reduced gradients are added to what is held."""
        return not (self.sharding.accumulates or self.sharding.offload)

    def pass_over(self, units: Units, copies: Copies, backward: bool) -> None:
        """Add what copies leave behind. Buffers stay as they are: a copy leaves those that it found."""
        series = [units.blocks[block] for block in copies.blocks]
        if not self.sharding.reshard:
            self.gathered += (-1 if backward else 1) * copies.times * sum([unit.whole for unit in series])
        if backward and self.keeps_gradients:
            self.gradients += copies.times * sum([unit.reduce_output for unit in series])


def visits(units: Units, order: Order, sharding: Sharding) -> Iterator[Visit]:
    """A forward and a backward pass: the root, every block of `order` but those passed over, the root, and back.

    In the forward pass a unit's buffer stays until the next unit's weights are in place, in the backward pass until its
    own are; there the next block's weights are fetched before a block begins.
    """
    device = _Device(sharding, units, order)
    yield from _forward(device, units, order)
    yield from _backward(device, units, order)


def _forward(device: _Device, units: Units, order: Order) -> Iterator[Visit]:
    root = units.root
    entering = (device.gather(root), device.copy_out(root))
    yield Visit(None, False, entering, device.held())
    last = device.gathering
    for block in order:
        if isinstance(block, Copies):
            device.pass_over(units, block, backward=False)
            continue
        unit = units.blocks[block]
        entering = (device.gather(unit), device.copy_out(unit))
        device.gathering, last = device.gathering - last, unit.buffer
        yield Visit(block, False, entering, device.held())
        if device.sharding.reshard:
            device.gathered -= unit.whole
    yield Visit(None, False, (), device.held())
    device.gathering = 0  # freed when the root returns


def _backward(device: _Device, units: Units, order: Order) -> Iterator[Visit]:
    reshard, coming = device.sharding.reshard, order[::-1]
    entering = (device.gather(_fetched(units, coming[0])),) if coming and reshard else ()
    yield Visit(None, True, entering, device.held())
    for place, block in enumerate(coming):
        if isinstance(block, Copies):
            device.pass_over(units, block, backward=True)
            continue
        unit, moments = units.blocks[block], list[Held]()
        if reshard:
            moments.append(device.copy_out(unit))
            device.gathering -= unit.buffer
            if place + 1 < len(coming):
                moments.append(device.gather(_fetched(units, coming[place + 1])))
        during = device.held()
        yield Visit(block, True, tuple(moments), during, *device.reduce(unit))
    during = device.held()
    yield Visit(None, True, (), during, *device.reduce(units.root))


def _fetched(units: Units, step: int | Copies) -> Unit:
    """The unit that a backward pass needs first in a step of its order."""
    return units.blocks[step.blocks[-1] if isinstance(step, Copies) else step]


class Messages(NamedTuple):
    """Bytes that one rank sends in one forward and backward pass."""

    gathers: int
    """All-gathers of weights, within a group of W."""
    reductions: int
    """Reduce-scatters of gradients, within a group of W."""
    sums: int
    """All-reduces of gradients over the replicas."""
    host: int
    """Between host and device memory, both ways."""


def messages(units: Units, order: Order, sharding: Sharding) -> Messages:
    """What is sent: a ring passes (W - 1)/W of what it gathers or reduces through every rank, an all-reduce twice that.

    The root is gathered once. Blocks are gathered for both passes, or once where they are kept. Offloaded shards are
    copied to the device for every gather, and reduced gradients back.
    """
    root = sum(units.root.parts)
    blocks = sum(sum(units.blocks[block].parts) * times for block, times in _times(order).items())
    gathered = root + blocks * (2 if sharding.reshard else 1)
    others, replicas = sharding.ranks - 1, sharding.replicas
    return Messages(
        gathers=sharding.element * others * gathered,
        reductions=MASTER * others * (root + blocks),
        sums=2 * MASTER * (root + blocks) * (replicas - 1) // replicas,
        host=MASTER * (gathered + root + blocks) if sharding.offload else 0,
    )
