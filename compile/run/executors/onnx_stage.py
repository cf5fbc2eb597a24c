"""Stages run by ONNX Runtime: on the CPU, or on CUDA where onnxruntime-gpu finds a device.

On CUDA, with torch installed, graphs read and write torch's tensors where they are. Where a graph says no shapes of its
outputs before it runs (a VAE's frames), and without torch, ONNX Runtime copies from and to the host.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from sora_spec.builders.diffusion.arrays import NUMPY, Array, NumpyArrays
from sora_spec.compile.bundle.contract import Contract, concrete
from sora_spec.compile.export.targets import local_compute_capability
from sora_spec.compile.run.executors.stage import Stage, device_arrays
from sora_spec.errors import UserError
from sora_spec.language.packaged import install_command
from sora_spec.recipe.parts import GraphName


def import_onnxruntime() -> Any:
    """The package, or a UserError that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"running a bundle needs ONNX Runtime: {error}",
            f"{install_command('run')}, or the extra `run-gpu` in its place on a machine with a GPU",
        ) from error
    return onnxruntime


class OnnxStage(Stage):
    """One ONNX file in an ONNX Runtime session."""

    backend = "onnx"

    def __init__(
        self, name: GraphName, path: Path, contract: Contract, cpu_only: bool = False, offload: bool = False
    ) -> None:
        self._ort = ort = import_onnxruntime()
        self._path = path
        self._providers = ["CPUExecutionProvider"] if cpu_only else _providers(ort)
        self.session: Any = None
        self.runtime = self._describe(self._providers[0])
        super().__init__(name, contract, offload)

    def _describe(self, provider: str) -> str:
        return f"onnxruntime {self._ort.__version__} {provider.removesuffix('ExecutionProvider').lower()}"

    def _open(self) -> None:
        ort = self._ort
        try:
            self.session = ort.InferenceSession(str(self._path), _session_options(ort), providers=self._providers)
        except Exception as error:  # ONNX Runtime's exception types are not public
            raise UserError(
                f"ONNX Runtime {ort.__version__} cannot load {self._path}: {_first_line(error)}",
                _mend(str(error)),
            ) from error
        provider = self.session.get_providers()[0]
        self.runtime = self._describe(provider)
        self._check_graph()
        if provider.startswith("CUDA") and self._shapes_follow():
            self.xp = device_arrays()

    def _shapes_follow(self) -> bool:
        """Whether the inputs' shapes say the outputs'."""
        known, asked = (
            {extent for port in ports for extent in port.shape if isinstance(extent, str)}
            for ports in (self.contract.inputs, self.contract.outputs)
        )
        return asked <= known

    def _check_graph(self) -> None:
        """Refuse a graph of other inputs and outputs now, before anything is sampled."""
        for what, values, ports in (
            ("inputs", self.session.get_inputs(), self.contract.inputs),
            ("outputs", self.session.get_outputs(), self.contract.outputs),
        ):
            found = {value.name: len(value.shape or ()) for value in values}
            wanted = {port.name: len(port.shape) for port in ports}
            if found != wanted:
                raise UserError(
                    f"{self._path} has the {what} {_named(found)}, but {self.name} of the spec has {_named(wanted)}",
                    "the graph belongs to another spec or part: export the bundle again",
                )

    def _close(self) -> None:
        self.session, self.xp = None, NUMPY

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        names = [port.name for port in self.contract.outputs]
        try:
            if not isinstance(self.xp, NumpyArrays):
                return self._run_in_place(inputs, self.xp)
            return dict(zip(names, self.session.run(names, inputs), strict=True))
        except Exception as error:
            raise UserError(f"ONNX Runtime failed in {self.name}: {_first_line(error)}") from error

    def _run_in_place(self, inputs: dict[str, Array], arrays: Any) -> dict[str, Array]:
        """The graph over torch's tensors, which it reads and writes where they are."""
        ports, extents = {port.name: port for port in self.contract.inputs}, {}
        binding, device = self.session.io_binding(), arrays.device.type
        for name, value in inputs.items():
            named = zip(ports[name].shape, value.shape, strict=True)
            extents |= {extent: found for extent, found in named if isinstance(extent, str)}
            binding.bind_input(name, device, 0, np.dtype(ports[name].dtype), tuple(value.shape), value.data_ptr())
        outputs: dict[str, Array] = {}
        for port in self.contract.outputs:
            shape = concrete(port.shape, extents)
            value = outputs[port.name] = arrays.allocate(shape, port.dtype)
            binding.bind_output(port.name, device, 0, np.dtype(port.dtype), shape, value.data_ptr())
        arrays.synchronize()  # ONNX Runtime works in a stream of its own
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return outputs


def _providers(ort: Any) -> list[str]:
    # That a provider is compiled in says nothing about a device; asking for CUDA without one logs errors.
    if "CUDAExecutionProvider" in ort.get_available_providers() and local_compute_capability() is not None:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _session_options(ort: Any) -> Any:
    """All cores this process may use (OMP_NUM_THREADS where it is set), and no threads that spin between calls."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(asked) if asked.isdecimal() and int(asked) > 0 else cores


def _named(axes: dict[str, int]) -> str:
    return ", ".join(f"{name} of {count} axes" for name, count in axes.items()) or "none"


def _mend(text: str) -> str:
    if "bfloat16" in text or "NOT_IMPLEMENTED" in text:
        return "its CPU backend runs fp32 and fp16, not bf16: sora-spec export RUN --precision fp32"
    return "export the bundle again with --force, or with another version of ONNX Runtime than this"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
