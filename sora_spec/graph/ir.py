"""The model graph: ops in the order in which they run, with the parts of the model they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

from sora_spec.graph.eager.layout import Shape
from sora_spec.graph.eager.tape import Op, Region, Tape, Use, YamlPath

Kind = Literal[
    "linear", "conv", "attention", "norm", "softmax", "elementwise", "reduction", "embedding", "copy", "factory"
]
"""The closed list of kinds of ops."""
Role = Literal["parameter", "buffer", "input", "gradient", "state"]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("addmm", "mm", "bmm"), "linear"),
    **dict.fromkeys(("convolution", "convolution_backward"), "conv"),
    **dict.fromkeys(
        (
            f"_scaled_dot_product_{kernel}{direction}"
            for kernel in ("flash_attention", "efficient_attention", "flash_attention_for_cpu")
            for direction in ("", "_backward")
        ),
        "attention",
    ),
    **dict.fromkeys(
        (
            f"{norm}{direction}"
            for norm in ("native_layer_norm", "native_group_norm", "_fused_rms_norm")
            for direction in ("", "_backward")
        ),
        "norm",
    ),
    **dict.fromkeys(("_safe_softmax", "_softmax_backward_data"), "softmax"),
    **dict.fromkeys(("sum", "mean"), "reduction"),
    **dict.fromkeys(("embedding", "embedding_dense_backward", "index"), "embedding"),
    **dict.fromkeys(("clone", "cat", "stack", "slice_backward", "constant_pad_nd", "_to_copy"), "copy"),
    **dict.fromkeys(("all_to_all", "all_gather", "reduce_scatter"), "copy"),
    **dict.fromkeys(("ones_like", "scalar_tensor", "zeros"), "factory"),
}


def kind_of(op: Op) -> Kind:
    """Kind of an op; pointwise kernels are `elementwise`."""
    return _KINDS.get(op.name, "elementwise")


@dataclass(frozen=True)
class Resident:
    """A tensor that exists before the first op."""

    name: str
    role: Role
    shape: Shape
    nbytes: int
    region: int
    trained: bool = False
    persistent: bool = False
    """Whether it is a buffer that checkpoints hold, and the moving average with them."""

    @property
    def numel(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Repeat:
    """Blocks `first` to `last` (exclusive) of the graph stand for `times` copies of themselves."""

    first: int
    last: int
    times: int

    def holds(self, block: int | None) -> bool:
        """Whether a block is one of those that are repeated."""
        return block is not None and self.first <= block < self.last


@dataclass(frozen=True)
class Run:
    """Ops `start` to `end` (exclusive) of the schedule, which are repeated as a whole."""

    start: int
    end: int


@dataclass(frozen=True)
class Graph:
    """What one component runs. Byte counts of `tape` are those of the graph as it stands, without repeats."""

    name: str
    component: str
    tape: Tape
    residents: tuple[Resident, ...]
    forward_ops: int
    """Ops before the backward pass begins."""
    forward_live_bytes: int
    """Bytes alive when the forward pass has returned, residents included, without repeats."""
    output: tuple[Shape, str]
    """Shape and type of the result."""
    repeat: Repeat | None = None
    result: Use | None = None
    """Storage and layout of the result, of a recording."""
    recorded: str = ""
    """When and by which versions it was recorded from the real module; empty for one that was lowered."""

    @property
    def ops(self) -> list[Op]:
        return self.tape.ops

    @property
    def regions(self) -> list[Region]:
        """The parts of the model, by the number that ops and residents carry."""
        return self.tape.regions

    def times(self, region: int) -> int:
        """How often what belongs to a region occurs."""
        repeat, found = self.repeat, self.regions[region]
        return found.times * (repeat.times if repeat is not None and repeat.holds(found.block) else 1)

    @property
    def abridged(self) -> bool:
        """Whether any op stands for several."""
        return self.repeat is not None or any(region.times > 1 for region in self.regions)

    @cached_property
    def runs(self) -> list[Run]:
        """The stretches of the schedule that are repeated, in order."""
        if self.repeat is None:
            return []
        runs: list[Run] = []
        start: int | None = None
        repeated = [self.repeat.holds(region.block) for region in self.regions]
        for index, op in enumerate(self.ops):
            if repeated[op.region]:
                start = index if start is None else start
            elif start is not None:
                runs.append(Run(start, index))
                start = None
        assert start is None, "the last block is never a repeated one"
        return runs

    def level_before(self, index: int) -> int:
        """Bytes alive just before op `index` allocates; after the last op, what is left."""
        if index == len(self.ops):
            return self.tape.live_bytes
        made = [output[0] for output in self.ops[index].outputs]
        return self.ops[index].live_bytes - sum(self.tape.sizes[storage] for storage in made)

    def label(self, region: int) -> str:
        """Path of a region with the numbers of the blocks that it stands for."""
        found = self.regions[region]
        if self.repeat is None or found.block is None or found.block < self.repeat.first:
            return found.path
        number, extra = found.block, (self.repeat.times - 1) * (self.repeat.last - self.repeat.first)
        span = f"{number}..{number + extra}" if self.repeat.holds(number) and extra else str(number + extra)
        return found.path.replace(f"[{number}]", f"[{span}]", 1)

    def yaml(self, region: int) -> YamlPath:
        """Path of the YAML value that a region comes from."""
        return self.regions[region].yaml
