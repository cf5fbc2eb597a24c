"""PyTorch module → ONNX file, with dynamic batch and frames.

Tracing runs on fake tensors of a tiny clip, so that its cost does not depend on the clip's size. Batch 2 and at least
two latent frames: `torch.export` would take an extent of 1 for a constant.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from sora_spec.compile.bundle.contract import BATCH, Contract
from sora_spec.compile.bundle.manifest import Precision, Range
from sora_spec.compile.export.graph_passes import count_nodes, simplify
from sora_spec.errors import UserError

EXTERNAL_DATA_BYTES = 64 * 1024**2
"""Weights above this lie beside the graph, as `NAME.onnx.data`; protobuf ends at 2 GiB, viewers long before."""
IR_VERSION = 10
"""Newer ones are refused by ONNX Runtimes and TensorRT parsers that are still about."""
OPSETS: dict[Precision, int] = {"fp32": 20, "fp16": 23, "bf16": 23}
"""fp32 keeps attention decomposed (opset ≤ 22): TensorRT has no fused fp32 kernel and refuses opset 23's Attention
without one. In half precision that refusal is wanted: the engine builds with fused attention or not at all."""
_TRACE_BATCH = 2


@dataclass(frozen=True)
class ExportedGraph:
    """Facts about a written ONNX file."""

    path: Path
    opset: int
    ir_version: int
    nodes: int


def export_onnx(module: nn.Module, contract: Contract, path: Path, opset: int) -> ExportedGraph:
    """Write `module` as ONNX to `path`, weights beside it when they are large.

    The file has passed ONNX's checker and strict shape inference, and holds no op that TensorRT is known to refuse.
    Raises UserError when the module cannot be traced with dynamic batch and frames.
    """
    example = trace_inputs(contract)
    with _quiet_exporter(), torch.no_grad():  # without a graph for gradients tracing takes two thirds of the time
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            dynamo=True,
            optimize=False,
            opset_version=opset,
            input_names=list(example),
            output_names=[port.name for port in contract.outputs],
            dynamic_shapes=_dynamic_shapes(contract),
            verbose=False,
        )
    assert program is not None
    model = simplify(program.model)
    model.ir_version = IR_VERSION
    model.producer_name = "sora-spec"
    model.graph.name = path.stem
    _name_axes(model, contract)
    _save(model, path)
    check_onnx(path)
    return ExportedGraph(path, opset=model.graph.opset_imports[""], ir_version=IR_VERSION, nodes=count_nodes(model))


def trace_inputs(contract: Contract) -> dict[str, Tensor]:
    """Small example inputs for tracing."""
    extents = {
        name: _TRACE_BATCH if name == BATCH else (2 if axis.multiple_of > 1 else 3) * axis.multiple_of
        for name, axis in contract.axes.items()
    }
    shapes = contract.shapes(**extents)
    return {port.name: torch.zeros(shapes[port.name], dtype=getattr(torch, port.dtype)) for port in contract.inputs}


def _dynamic_shapes(contract: Contract) -> tuple[dict[int, Any], ...]:
    """`torch.export`'s marks: one symbol for the batch, one (times the patch) for the frames."""
    symbols = {name: _symbol(name, axis) for name, axis in contract.axes.items()}
    return tuple(
        {axis: symbols[extent] for axis, extent in enumerate(port.shape) if isinstance(extent, str)}
        for port in contract.inputs
    )


def _symbol(name: str, axis: Range) -> Any:
    if axis.max is None:
        return torch.export.Dim(name, min=1)
    unit = axis.multiple_of
    # A position table cut to its whole length is a different tensor to the tracer (contiguous) than any shorter cut, so
    # the longest clip is left out while tracing. The ONNX graph knows no such difference.
    symbol = torch.export.Dim(name if unit == 1 else "units", min=1, max=axis.max // unit - 1)
    return symbol if unit == 1 else unit * symbol


def _name_axes(model: ir.Model, contract: Contract) -> None:
    """Give the graph's inputs and outputs the contract's axis names in place of the tracer's symbols."""
    values, ports = (*model.graph.inputs, *model.graph.outputs), (*contract.inputs, *contract.outputs)
    for value, port in zip(values, ports, strict=True):
        assert value.name == port.name, (value.name, port.name)
        for axis, extent in enumerate(port.shape):
            found = value.shape[axis] if value.shape is not None else None
            if isinstance(extent, str) == isinstance(found, int):
                raise UserError(
                    f"tracing fixed axis {axis} of {port.name} at {found} where {extent} was expected",
                    "export is tested with the kinds listed in the reference; please report this spec",
                )
        value.shape = ir.Shape(port.shape)


def _save(model: ir.Model, path: Path) -> None:
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    external = f"{path.name}.data" if weights > EXTERNAL_DATA_BYTES else None
    ir.save(model, path, external_data=external)


def check_onnx(path: Path) -> None:
    """ONNX's full check and strict shape inference, by path since external weights may pass protobuf's 2 GiB."""
    onnx.checker.check_model(str(path), full_check=True)
    inferred = path.with_name(f".{path.name}.inferred")
    try:
        onnx.shape_inference.infer_shapes_path(
            str(path), str(inferred), check_type=True, strict_mode=True, data_prop=True
        )
    finally:
        inferred.unlink(missing_ok=True)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's own log lines and warnings, which name nothing a user could change, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "torch.fx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
