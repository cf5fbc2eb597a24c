"""Exported against eager on random inputs: three batch sizes times two clip lengths, not only the traced shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sora_spec.compile.bundle.contract import BATCH, FRAMES, Contract
from sora_spec.compile.bundle.manifest import Parity, ParityCase, Port, Precision
from sora_spec.compile.run.executors.stage import Stage
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import ClassCondition
from sora_spec.language.schema.objective import Ddpm
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes

LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 0.0}
"""Largest relative L2 error. Half precision keeps 11 bits: one rounding is 5e-4, and a deep network makes hundreds."""
BATCHES = (1, 2, 3)
BUDGET_FLOPS = 1.5e13
"""Above this the measurement takes the shortest clips instead of the spec's: it would run for many minutes on a CPU."""


@dataclass(frozen=True)
class Comparison:
    """What to compare on which shapes."""

    spec: Spec
    contract: Contract
    lengths: tuple[int, ...]
    note: str | None = None


def plan_comparison(spec: Spec, contract: Contract, module: nn.Module) -> Comparison:
    """Two clip lengths: the spec's own and one unit more, or the two shortest where those cost too much. 0 stands for
    the length of a part that sees no frames."""
    if FRAMES not in contract.axes:
        return Comparison(spec, contract, (0,))
    frames = contract.axes[FRAMES]
    assert frames.max is not None
    own, unit = derive_shapes(spec).latent_frames, frames.multiple_of
    lengths = (own, own + unit if own + unit <= frames.max else own - unit)
    cost = sum(BATCHES) * sum(forward_flops(module, contract, length) for length in lengths)
    if cost <= BUDGET_FLOPS:
        return Comparison(spec, contract, lengths)
    note = f"measured on {unit} and {2 * unit} latent frames: the clip's own {own} would take {cost:.1e} FLOPs"
    return Comparison(spec, contract, (unit, 2 * unit), note)


def forward_flops(module: nn.Module, contract: Contract, frames: int) -> int:
    """Forward FLOPs of one sample of `frames` latent frames, counted by PyTorch on fake tensors."""
    shapes = contract.shapes(batch=1, frames=frames)
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.zeros(shapes[port.name], dtype=getattr(torch, port.dtype)) for port in contract.inputs))
    return counter.get_total_flops()


def measure_parity(comparison: Comparison, eager: Stage, exported: Stage, precision: Precision) -> Parity:
    """Relative L2 and largest absolute error of `exported` against `eager` in fp32.

    Raises UserError (exit code 1) when a case is over the limit, or is not finite.
    """
    cases = tuple(_cases(comparison, eager, exported))
    parity = Parity(backend=exported.runtime, limit=LIMITS[precision], cases=cases, note=comparison.note)
    for case in cases:
        if not case.relative_l2 <= parity.limit:
            raise UserError(
                f"{exported.name}: exported and eager differ by {case.relative_l2:.2e} (relative L2) at batch "
                f"{case.batch}, {case.frames} latent frames; the limit for {precision} is {parity.limit:.0e}",
                "export with --precision fp32"
                if precision != "fp32"
                else "nothing was written; please report this spec",
                exit_code=1,
            )
    return parity


def _cases(comparison: Comparison, eager: Stage, exported: Stage) -> Iterator[ParityCase]:
    generator = np.random.default_rng(0)
    for length, batch in product(comparison.lengths, BATCHES):
        inputs = random_inputs(comparison.spec, comparison.contract, batch, length, generator)
        name = comparison.contract.outputs[0].name
        wanted, found = eager.run(inputs)[name], exported.run(inputs)[name]
        difference = found.astype(np.float64) - wanted
        relative = float(np.linalg.norm(difference) / np.linalg.norm(wanted.astype(np.float64)))
        yield ParityCase(batch=batch, frames=length, relative_l2=relative, max_abs=float(np.abs(difference).max()))


def answers_zero(spec: Spec, eager: Stage) -> bool:
    """Whether the output is zero for a random input, as of a freshly initialised adaLN-zero network."""
    contract = eager.contract
    frames = contract.axes[FRAMES].multiple_of if FRAMES in contract.axes else 0
    result = eager.run(random_inputs(spec, contract, 1, frames, np.random.default_rng(1)))
    return not result[contract.outputs[0].name].any()


def random_inputs(
    spec: Spec, contract: Contract, batch: int, frames: int, generator: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Normal latents and contexts, times as the objective draws them, labels over all classes."""
    shapes = contract.shapes(**{BATCH: batch, FRAMES: frames})
    return {port.name: _random(spec, port, shapes[port.name], generator) for port in contract.inputs}


def _random(spec: Spec, port: Port, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    if port.name == "label":
        assert isinstance(spec.condition, ClassCondition)
        return generator.integers(0, spec.condition.classes, shape)
    if port.name == "time" and isinstance(spec.objective, Ddpm):
        return generator.integers(0, spec.objective.steps, shape).astype(np.float32)
    if port.name == "time":
        return generator.uniform(0.0, 1.0, shape).astype(np.float32)
    return generator.standard_normal(shape, dtype=np.float32)
