"""Executors work on arrays of their own device: what crosses between it and the host while clips are sampled."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sora_spec.builders.diffusion.arrays import NumpyArrays
from sora_spec.builders.diffusion.condition import Condition
from sora_spec.builders.diffusion.torch_arrays import TorchArrays
from sora_spec.compile.bundle.bundle import Bundle
from sora_spec.compile.bundle.contract import contract_of
from sora_spec.compile.run.decoding import OnePass
from sora_spec.compile.run.executors.onnx_stage import OnnxStage
from sora_spec.compile.run.executors.stage import Stage
from sora_spec.compile.run.pipeline import Pipeline
from sora_spec.language.schema.spec import Spec


class Elsewhere:
    """An array of another device: numpy's arithmetic, but whatever would read it from the host is an error."""

    def __init__(self, held: NDArray[Any]) -> None:
        self.held = held

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise AssertionError("copied to the host behind the back of its arrays")

    __float__ = __iter__ = __len__ = __bool__ = __array__  # type: ignore[assignment]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.held.shape

    def __getitem__(self, index: Any) -> Elsewhere:
        return Elsewhere(self.held[index])

    def __abs__(self) -> Elsewhere:
        return Elsewhere(abs(self.held))

    def of(self, function: Any, *operands: Any) -> Elsewhere:
        assert not any(isinstance(operand, np.ndarray) for operand in operands), "an array of the host came in"
        return Elsewhere(function(*(getattr(operand, "held", operand) for operand in operands)))


for sign in ("add", "sub", "mul", "truediv"):
    function = getattr(operator, sign)
    setattr(Elsewhere, f"__{sign}__", lambda a, b, f=function: a.of(f, a, b))
    setattr(Elsewhere, f"__r{sign}__", lambda a, b, f=function: a.of(f, b, a))


class CountingArrays:
    """`Arrays` of a device of its own, which counts what goes up to it and what comes down."""

    def __init__(self) -> None:
        self.up = self.down = self.numbers = 0

    def from_host(self, value: NDArray[Any]) -> Elsewhere:
        self.up += 1
        return Elsewhere(value.copy())

    def to_host(self, x: Elsewhere) -> NDArray[Any]:
        self.down += 1
        return x.held

    def rms(self, x: Elsewhere) -> float:
        self.numbers += 1
        return NumpyArrays().rms(x.held)

    def concat(self, parts: Any, axis: int) -> Elsewhere:
        return Elsewhere(np.concatenate([part.held for part in parts], axis))

    def full(self, value: float, like: Elsewhere) -> Elsewhere:
        return Elsewhere(NumpyArrays().full(value, like.held))

    def labels(self, value: int, like: Elsewhere) -> Elsewhere:
        return Elsewhere(NumpyArrays().labels(value, like.held))

    def cast(self, x: Elsewhere, like: Elsewhere) -> Elsewhere:
        return Elsewhere(NumpyArrays().cast(x.held, like.held))

    def contiguous(self, x: Elsewhere, dtype: str | None = None) -> Elsewhere:
        return Elsewhere(NumpyArrays().contiguous(x.held, dtype))

    def empty(self, shape: tuple[int, ...], like: Elsewhere) -> Elsewhere:
        return Elsewhere(NumpyArrays().empty(shape, like.held))

    def ramp(self, count: int, like: Elsewhere) -> Elsewhere:
        return Elsewhere(NumpyArrays().ramp(count, like.held))

    def exp(self, x: Elsewhere) -> Elsewhere:
        return Elsewhere(np.exp(x.held))

    def maximum(self, a: Elsewhere, b: Elsewhere) -> Elsewhere:
        return Elsewhere(np.maximum(a.held, b.held))


class ToyStage(Stage):
    """A nonlinear function of latents, time and label in the denoiser's shapes, on whichever arrays it is given."""

    backend, runtime = "torch", "toy"

    def __init__(self, spec: Spec, xp: Any) -> None:
        self.xp, self.learned = xp, getattr(spec.backbone, "learn_sigma", False)
        super().__init__("denoiser", contract_of(spec, "denoiser"), offload=False)

    def _open(self) -> None: ...

    def _close(self) -> None: ...

    def _run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        x, time, label = (getattr(value, "held", value) for value in inputs.values())
        scale = (time / (1 + time) + 0.1 * label).reshape(-1, 1, 1, 1, 1)
        value = (x / (1 + abs(x)) * scale).astype(np.float32)
        value = np.concatenate([value, 0.5 * value], 1) if self.learned else value
        return {"prediction": Elsewhere(value) if isinstance(self.xp, CountingArrays) else value}


def over(spec: Spec, denoiser: Stage) -> Pipeline:
    return Pipeline(spec, [denoiser], OnePass(spec, denoiser))


INTERPOLANT, DDPM = {"kind": "interpolant"}, {"kind": "ddpm"}


@pytest.mark.parametrize("steps", [3, 11])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize(
    ("objective", "kind", "draws"),
    [
        (INTERPOLANT, "euler", 0),
        (INTERPOLANT, "heun", 0),
        (INTERPOLANT, "dopri5", 0),
        (DDPM, "ddim", 0),
        # A noisy sampler's fresh noise is drawn on the host; DDPM adds none in its last step.
        (INTERPOLANT, "euler_maruyama", 0),
        (DDPM, "ddpm", -1),
    ],
)
def test_nothing_crosses_while_latents_are_sampled(
    toys: Any, objective: dict[str, Any], kind: str, draws: int, steps: int, guidance: float
) -> None:
    """Noise and labels go up, the end comes down, whatever the number of steps; the values are the host's."""
    sampler = {"kind": kind, "guidance": guidance} | ({} if kind == "dopri5" else {"steps": steps})
    spec = toys.spec(objective=objective, sampler=sampler, backbone_with={"learn_sigma": objective == DDPM})
    noisy = kind in ("euler_maruyama", "ddpm")
    xp = CountingArrays()
    stage = ToyStage(spec, xp)
    found = over(spec, stage).sample([0, 1], Condition(np.array([2, 0])), seed=3)
    assert (xp.up, xp.down) == (2 + noisy * (steps + draws), 1)
    assert (xp.numbers > 0) == (kind == "dopri5"), "only the adaptive sampler reads numbers: its errors"
    host = ToyStage(spec, NumpyArrays())
    np.testing.assert_array_equal(found, over(spec, host).sample([0, 1], Condition(np.array([2, 0])), seed=3))


def test_a_steps_latents_are_the_executors_own(toys: Any) -> None:
    spec = toys.spec()
    xp = CountingArrays()
    stage = ToyStage(spec, xp)
    for step in over(spec, stage).steps([0], Condition(np.array([1])), seed=0):
        assert isinstance(step.latents, Elsewhere)
    assert xp.down == 0


def test_onnx_runtime_reads_and_writes_tensors_where_they_are(tiny_bundle: Bundle) -> None:
    """What a GPU does, with the CPU as the device: the graph's own results, in memory that torch gave."""
    spec = tiny_bundle.load_spec()
    path = tiny_bundle.path / tiny_bundle.part("denoiser").file
    stage = OnnxStage("denoiser", path, contract_of(spec, "denoiser"), cpu_only=True)
    rng = np.random.default_rng(0)
    inputs = {
        "latents": rng.standard_normal((2, 4, 3, 8, 12), np.float32),
        "time": np.array([0.25, 0.75], np.float32),
        "label": np.array([1, 4], np.int64),
    }
    wanted = stage.run(inputs)["prediction"]
    stage.xp = TorchArrays(torch.device("cpu"))
    found = stage.compute({name: torch.from_numpy(value) for name, value in inputs.items()})["prediction"]
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), wanted)
