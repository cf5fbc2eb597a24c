"""The record of a simulated run: which ops ran, in which part of the model, and which bytes were alive after each.

A `Storage` is counted from its creation until Python's reference counting drops it, which is how PyTorch frees memory.
Nothing here may form reference cycles: a cycle would keep bytes alive that PyTorch frees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.layout import Shape

if TYPE_CHECKING:
    from sora_spec.graph.eager.tensor import Tensor

YamlPath = tuple[str | int, ...]
Layout = tuple[Shape, Shape, DType]
"""Shape, strides and type of a tensor."""


@dataclass(slots=True)
class Region:
    """A named part of the model, such as `backbone.blocks[3].attention`."""

    path: str
    yaml: YamlPath
    """Path of the YAML value that made it."""
    block: int | None
    """Number of the repeated unit it lies in."""
    times: int = 1
    """How many equal stretches its ops stand for, of which each leaves as many bytes alive as it found."""


Use = tuple[int, Shape, Shape, DType]
"""Storage, shape, strides and type of a tensor that an op reads or makes."""


class Op:
    """One kernel that ran. Views and other ops that allocate nothing are left out."""

    __slots__ = (
        "backward",
        "flops",
        "inputs",
        "live_bytes",
        "name",
        "outputs",
        "read_bytes",
        "region",
        "workspace_bytes",
        "written_bytes",
    )

    def __init__(self, name: str, region: int, backward: bool, flops: int, workspace_bytes: int) -> None:
        self.name, self.region, self.backward = name, region, backward
        """ATen's name, such as `addmm`; the number of its region; whether it belongs to the backward pass."""
        self.flops = flops
        """Floating-point operations of matrix kinds, a multiply-accumulate being 2; 0 for others."""
        self.workspace_bytes = workspace_bytes
        """Bytes that the kernel takes while it runs and that no dispatcher sees, where they are known."""
        self.read_bytes = self.written_bytes = 0
        self.live_bytes = 0
        """Bytes alive once it has run."""
        self.inputs: list[Use] = []
        self.outputs: list[Use] = []


class Storage:
    """Bytes of a tensor, alive as long as something refers to them."""

    __slots__ = ("index", "nbytes", "tape")

    def __init__(self, tape: Tape, nbytes: int) -> None:
        self.tape, self.nbytes, self.index = tape, nbytes, len(tape.sizes)
        tape.sizes.append(nbytes)
        tape.born.append(len(tape.ops))
        tape.died.append(None)
        tape.live_bytes += nbytes

    def grow(self, nbytes: int) -> None:
        """Let the storage that the last op made be larger than its elements."""
        tape = self.tape
        more = tape.rounded(nbytes) - self.nbytes
        self.nbytes += more
        tape.sizes[self.index] += more
        tape.live_bytes += more
        tape.ops[-1].live_bytes += more

    def __del__(self) -> None:
        self.tape.live_bytes -= self.nbytes
        self.tape.died[self.index] = len(self.tape.ops)


class Saver(Protocol):
    """What decides how tensors are kept for the backward pass; see `sora_spec.graph.eager.recompute`."""

    def pack(self, tensor: Tensor) -> object:
        """What a node keeps in place of `tensor`."""
        ...

    def replay(self, name: str) -> tuple[Tensor, ...] | None:
        """Outputs kept from the first run of this op, or None to run it."""
        ...

    def keep(self, name: str, outputs: tuple[Tensor, ...]) -> None:
        """Look at the outputs of an op that ran."""
        ...


class Tape:
    """The state of a simulated run.

    `rounding`: every storage takes a multiple of so many bytes.
    `observed`: whether a dispatch mode is watching, under which PyTorch makes some sums anew, and in place otherwise.
    `on_cpu`: whether the CPU's kernels run, or a GPU's.
    `threads`: those of the CPU whose buffers are counted as workspace.
    `winograd`: whether tiles of cuDNN's Winograd kernels are counted as workspace.
    """

    def __init__(
        self,
        rounding: int = 1,
        observed: bool = False,
        on_cpu: bool = False,
        threads: int = 0,
        winograd: bool = False,
    ) -> None:
        self.rounding, self.on_cpu, self.threads, self.winograd = rounding, on_cpu, threads, winograd
        self.observed = observed
        self.live_bytes = 0
        self.ops: list[Op] = []
        self.sizes: list[int] = []
        self.born: list[int] = []
        self.died: list[int | None] = []
        self.regions: list[Region] = [Region("", (), None)]
        self.region = 0
        self.backward = False
        self.grad_enabled = True
        self.saver: Saver | None = None
        self.sequence = 0
        self._known: dict[tuple[int, str], int] = {}

    def enter(
        self, name: str, yaml: YamlPath = (), block: int | None = None, outer: int | None = None, times: int = 1
    ) -> Entered:
        """Context in which ops belong to the part `name` of the current region, or of region `outer`.

        `times`: how often the part runs for each run of the region; see `Region.times`.
        """
        outer = self.region if outer is None else outer
        key = (outer, name)
        index = self._known.get(key)
        if index is None:
            parent = self.regions[outer]
            path = f"{parent.path}.{name}" if parent.path else name
            index = self._known[key] = len(self.regions)
            own = parent.block if block is None else block
            self.regions.append(Region(path, yaml or parent.yaml, own, parent.times * times))
        return Entered(self, index)

    def allocate(self, numel: int, dtype: DType) -> Storage:
        return Storage(self, self.rounded(numel * dtype.size))

    def rounded(self, nbytes: int) -> int:
        """What a request for so many bytes takes."""
        return -(-nbytes // self.rounding) * self.rounding


class Entered:
    """`with tape.enter(...)`."""

    __slots__ = ("index", "outer", "tape")

    def __init__(self, tape: Tape, index: int) -> None:
        self.tape, self.index, self.outer = tape, index, tape.region

    def __enter__(self) -> None:
        self.outer, self.tape.region = self.tape.region, self.index

    def __exit__(self, *_: object) -> None:
        self.tape.region = self.outer
