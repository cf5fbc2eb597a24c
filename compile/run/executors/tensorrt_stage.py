"""Stages run by a TensorRT engine on this machine's GPU.

With torch installed they take and give its tensors, in its stream. Without, arrays are the host's, and every call
copies them through buffers from `cuda-bindings`.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sora_spec.builders.diffusion.arrays import Array, NumpyArrays
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.bundle.contract import Contract, contract_of
from sora_spec.compile.bundle.manifest import Engine, Profile, Range
from sora_spec.compile.export.targets import local_compute_capability
from sora_spec.compile.run.executors.stage import Stage, device_arrays
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.recipe.parts import GraphName, graph_parts

if TYPE_CHECKING:
    from sora_spec.builders.diffusion.torch_arrays import TorchArrays


class CudaMemory:
    """Buffers, copies and one stream of the CUDA runtime, for a machine without torch."""

    def __init__(self) -> None:
        try:
            runtime: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise UserError(
                f"running engines needs NVIDIA's cuda-bindings: {error}", "pip install cuda-bindings"
            ) from error
        self._cuda = runtime
        self.stream = int(self._call(runtime.cudaStreamCreate))

    def _call(self, function: Any, *arguments: Any) -> Any:
        status, *result = function(*arguments)
        if int(status) != 0:
            raise UserError(f"{function.__name__} failed: {status.name}", "nvidia-smi shows the state of the GPU")
        return result[0] if result else None

    def allocate(self, size: int) -> int:
        """Address of `size` fresh bytes on the device."""
        return int(self._call(self._cuda.cudaMalloc, size))

    def free(self, address: int) -> None:
        """Give a buffer back."""
        self._call(self._cuda.cudaFree, address)

    def upload(self, address: int, value: NDArray[Any]) -> None:
        """Copy an array to the device, in the order of the stream."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpyAsync, address, value.ctypes.data, value.nbytes, kind, self.stream)

    def download(self, address: int, out: NDArray[Any]) -> None:
        """Copy from the device into an array and wait for the stream."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cuda.cudaMemcpyAsync, out.ctypes.data, address, out.nbytes, kind, self.stream)
        self._call(self._cuda.cudaStreamSynchronize, self.stream)


class EngineStage(Stage):
    """One engine, which `load` deserializes: what both kinds of arrays have in common."""

    backend = "tensorrt"
    stream: int

    def __init__(
        self,
        name: GraphName,
        load: Callable[[], Any],
        contract: Contract,
        runtime: str,
        offload: bool = False,
    ) -> None:
        self.runtime = runtime
        self._load = load
        self._engine: Any = None
        self._context: Any = None
        super().__init__(name, contract, offload)

    def _open(self) -> None:
        self._engine = self._load()
        self._context = self._engine.create_execution_context()

    def _close(self) -> None:
        self._context = None  # before the engine, which it refers to
        self._engine = None

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        for name, value in inputs.items():
            if not self._context.set_input_shape(name, tuple(value.shape)):
                raise UserError(f"{self.name}: the engine does not take {name} of shape {tuple(value.shape)}")
            self._context.set_tensor_address(name, self._input(name, value))
        outputs: dict[str, Array] = {}
        for port in self.contract.outputs:
            shape = tuple(self._context.get_tensor_shape(port.name))
            outputs[port.name], address = self._output(port.name, shape, port.dtype)
            self._context.set_tensor_address(port.name, address)
        if not self._context.execute_async_v3(self.stream):
            raise UserError(
                f"{self.name}: the engine failed to run", "run with --backend onnx to tell model from engine"
            )
        return outputs

    @abstractmethod
    def _input(self, name: str, value: Array) -> int:
        """Address on the device of an input."""

    @abstractmethod
    def _output(self, name: str, shape: tuple[int, ...], dtype: str) -> tuple[Array, int]:
        """An array for an output, and the address on the device that the engine writes to."""


class DeviceEngineStage(EngineStage):
    """An engine over torch's tensors: it reads and writes them where they are, in torch's stream."""

    def __init__(self, arrays: TorchArrays, *arguments: Any, **settings: Any) -> None:
        self.xp, self.stream, self._arrays = arrays, arrays.stream, arrays
        super().__init__(*arguments, **settings)

    def _input(self, name: str, value: Array) -> int:
        return value.data_ptr()

    def _output(self, name: str, shape: tuple[int, ...], dtype: str) -> tuple[Array, int]:
        value = self._arrays.allocate(shape, dtype)
        return value, value.data_ptr()


class HostEngineStage(EngineStage):
    """An engine over numpy's arrays. Its buffers grow with the largest shape seen and are kept while it is open."""

    def __init__(self, memory: CudaMemory, *arguments: Any, **settings: Any) -> None:
        self._memory, self.stream = memory, memory.stream
        self._buffers: dict[str, tuple[int, int]] = {}
        super().__init__(*arguments, **settings)

    def _close(self) -> None:
        super()._close()
        for address, _ in self._buffers.values():
            self._memory.free(address)
        self._buffers.clear()

    def _buffer(self, name: str, size: int) -> int:
        address, capacity = self._buffers.get(name, (0, 0))
        if size > capacity:
            if capacity:
                self._memory.free(address)
            address = self._memory.allocate(size)
            self._buffers[name] = (address, size)
        return address

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        outputs = super()._run(inputs)
        for name, value in outputs.items():
            self._memory.download(self._buffers[name][0], value)
        return outputs

    def _input(self, name: str, value: Array) -> int:
        address = self._buffer(name, value.nbytes)
        self._memory.upload(address, value)
        return address

    def _output(self, name: str, shape: tuple[int, ...], dtype: str) -> tuple[Array, int]:
        value = np.empty(shape, np.dtype(dtype))
        return value, self._buffer(name, value.nbytes)


def usable_engine(bundle: Bundle, part: GraphName) -> Engine | None:
    """The bundle's engine for this machine's GPU and an installed TensorRT of the same version, if there is one."""
    sm = local_compute_capability()
    if sm is None:
        return None
    for engine in bundle.manifest.engines:
        if engine.part == part and engine.sm == f"sm{sm}" and _installed_version(engine.builder) == engine.version:
            return engine
    return None


def _installed_version(module: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    return str(importlib.import_module(module).__version__)


def load_engines(bundle: Bundle, spec: Spec, offload: bool = False) -> list[Stage]:
    """The engines of all parts, on one stream.

    Raises UserError that says what is missing: a device, a matching engine, or the packages that run it.
    """
    sm = local_compute_capability()
    if sm is None:
        raise UserError(
            "TensorRT engines run on a GPU, and this machine has no CUDA device or no driver",
            f"here: sora-spec generate {bundle.path} --backend onnx; or copy the bundle to the machine with the GPU",
        )
    found = {part.name: usable_engine(bundle, part.name) for part in graph_parts(spec)}
    if missing := [name for name, engine in found.items() if engine is None]:
        built = sorted({f"{engine.sm} by {engine.builder} {engine.version}" for engine in bundle.manifest.engines})
        raise UserError(
            f"the bundle has no engine of {', '.join(missing)} for sm{sm} and an installed TensorRT "
            f"(engines: {', '.join(built) or 'none'})",
            f"build them here: sora-spec export {bundle.path} --trt --target sm{sm}",
        )
    arrays: Any = device_arrays()
    hosted = isinstance(arrays, NumpyArrays)
    kind = partial(HostEngineStage, CudaMemory()) if hosted else partial(DeviceEngineStage, arrays)
    return [_stage(bundle, spec, engine, kind, offload) for engine in found.values() if engine is not None]


def _stage(bundle: Bundle, spec: Spec, engine: Engine, kind: Callable[..., Stage], offload: bool) -> Stage:
    bundle.check_engine(engine)
    contract = within_profile(contract_of(spec, engine.part), engine.profile)
    runtime = f"{engine.builder} {engine.version} {engine.sm}"
    return kind(engine.part, partial(_deserialize, bundle, engine), contract, runtime, offload)


def _deserialize(bundle: Bundle, engine: Engine) -> Any:
    trt = importlib.import_module(engine.builder)
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    deserialized = runtime.deserialize_cuda_engine((bundle.path / engine.path).read_bytes())
    if deserialized is None:
        raise UserError(
            f"{engine.builder} {engine.version} cannot load {engine.path} on this GPU",
            f"build it here: sora-spec export {bundle.path} --trt --target {engine.sm}",
        )
    return deserialized


def within_profile(contract: Contract, profile: Profile) -> Contract:
    """`contract` narrowed to the shapes that an engine was built for."""
    axes = dict(contract.axes)
    for port in contract.inputs:
        for name, low, high in zip(port.shape, profile.min[port.name], profile.max[port.name], strict=True):
            if isinstance(name, str):
                axes[name] = Range(min=low, max=high, multiple_of=axes[name].multiple_of)
    return replace(contract, axes=axes)
