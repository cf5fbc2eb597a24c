"""One interface over PyTorch, ONNX Runtime and TensorRT: named arrays in, named arrays out.

A stage computes on arrays of its own device, so that what calls it again and again, a sampler, copies nothing between
device and host. Where the CPU is the device these are numpy's; on a GPU they are torch's, where torch is installed.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from numpy.typing import NDArray

from sora_spec.builders.diffusion.arrays import NUMPY, Array, Arrays
from sora_spec.compile.bundle.contract import Contract
from sora_spec.errors import UserError
from sora_spec.recipe.parts import GraphName

Backend = Literal["torch", "onnx", "tensorrt"]


def device_arrays() -> Arrays:
    """Arrays on the GPU, where there are one and a torch to compute with; elsewhere numpy's."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            from sora_spec.builders.diffusion.torch_arrays import TorchArrays

            return TorchArrays(torch.device("cuda"))
    return NUMPY


class Stage(ABC):
    """One part, loaded and ready to run; or, offloaded, loaded only while someone is `using` it."""

    name: GraphName
    backend: Backend
    runtime: str
    """What runs it, with version and device: recorded beside every video."""
    contract: Contract
    xp: Arrays = NUMPY
    """The arrays that it computes on while it is in `using`."""

    def __init__(self, name: GraphName, contract: Contract, offload: bool) -> None:
        self.name, self.contract, self.offload = name, contract, offload
        self._users = 0
        if not offload:
            self._open()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Have the stage on its device while the body runs. May be nested; costs nothing for a resident stage."""
        if self.offload and self._users == 0:
            self._open()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self.offload and self._users == 0:
                self._close()

    @abstractmethod
    def _open(self) -> None:
        """Bring the stage to its device. Raises UserError where that cannot be."""

    @abstractmethod
    def _close(self) -> None:
        """Free what it holds on its device."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """`compute` for arrays of the host."""
        with self.using():
            outputs = self.compute({name: self.xp.from_host(value) for name, value in inputs.items()})
            return {name: self.xp.to_host(value) for name, value in outputs.items()}

    def compute(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph on arrays of `xp`. Raises UserError when an input has another shape than the contract says."""
        self._check(inputs)
        ports = self.contract.inputs
        with self.using():
            return self._run({port.name: self.xp.contiguous(inputs[port.name], port.dtype) for port in ports})

    @abstractmethod
    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]: ...

    def _check(self, inputs: Mapping[str, Array]) -> None:
        extents: dict[str, int] = {}
        for port in self.contract.inputs:
            assert port.name in inputs, f"{self.name} needs {port.name}, got {sorted(inputs)}"
            shape = inputs[port.name].shape
            fits = len(shape) == len(port.shape) and all(
                found == (extents.setdefault(extent, found) if isinstance(extent, str) else extent)
                for found, extent in zip(shape, port.shape, strict=True)
            )
            if not fits:
                wanted = " × ".join(str(extents.get(extent, extent)) for extent in port.shape)  # type: ignore[arg-type]
                raise UserError(f"{self.name}: {port.name} is {' × '.join(map(str, shape))}, the graph takes {wanted}")
        for name, extent in extents.items():
            limits = self.contract.axes[name]
            too_long = limits.max is not None and extent > limits.max
            if extent < limits.min or too_long or extent % limits.multiple_of:
                upper = limits.max if limits.max is not None else "any number"
                raise UserError(
                    f"{self.name} takes {limits.min} to {upper} {name} by {limits.multiple_of}, not {extent}",
                    "see the axes of each part in the bundle's manifest.json",
                )
