"""The same samples from numpy and from torch, and no torch where none is needed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.builders.diffusion.samplers import NUMPY, Condition, sample
from sora_spec.builders.diffusion.torch_arrays import TORCH

SHAPE = (4, 2, 3, 3)
LABELS = np.array([1, 4, 0])
DDPM, SIT = {"kind": "ddpm"}, {"kind": "interpolant"}
CASES = [
    ({**DDPM}, {"kind": "ddpm", "steps": 30}),
    ({**DDPM, "variance": "fixed_large", "prediction": "velocity"}, {"kind": "ddpm", "steps": 30}),
    ({**DDPM, "prediction": "velocity", "zero_terminal_snr": True}, {"kind": "ddim", "steps": 20, "eta": 0.5}),
    ({**SIT}, {"kind": "euler", "steps": 10}),
    ({**SIT, "path": "vp", "prediction": "noise"}, {"kind": "heun", "steps": 10}),
    ({**SIT, "path": "gvp", "prediction": "score"}, {"kind": "dopri5"}),
    ({**SIT, "path": "vp", "prediction": "noise"}, {"kind": "dopri5"}),
    ({**SIT}, {"kind": "euler_maruyama", "steps": 20, "last_step": "tweedie"}),
]


def network_over(xp, of_array):
    """A small nonlinear network with time, label and channel mixing, in operators that both libraries share."""
    weights = of_array(np.random.default_rng(5).normal(size=(4, 8)).astype(np.float32))

    def network(x, time, labels):
        hidden = abs(x) / (1 + abs(x)) + x * 0.3
        scale = (time.reshape(-1, 1, 1, 1, 1) / 1000 + 0.1 * labels.reshape(-1, 1, 1, 1, 1)) * 0.3
        mixed = sum(hidden[:, c : c + 1] * weights[c].reshape(1, 8, 1, 1, 1) for c in range(4))
        return mixed / (1 + abs(mixed)) * (1 + scale)

    return network


@pytest.mark.parametrize(("objective", "sampler"), CASES)
@pytest.mark.parametrize("guidance", [{}, {"guidance": 2.5, "guidance_channels": 3}])
def test_numpy_and_torch_draw_the_same_samples(make_spec, objective, sampler, guidance):
    spec = make_spec(objective, {**sampler, **guidance}, {"kind": "class", "classes": 6})
    stream, twin = NoiseStream(9, range(3), SHAPE), NoiseStream(9, range(3), SHAPE)
    in_numpy = sample(spec, network_over(np, np.asarray), stream.initial, Condition(LABELS), stream.draw, NUMPY)
    in_torch = sample(
        spec,
        network_over(torch, torch.from_numpy),
        torch.from_numpy(twin.initial),
        Condition(torch.from_numpy(LABELS)),
        lambda: torch.from_numpy(twin.draw()),
        TORCH,
    )
    assert in_numpy.dtype == np.float32
    assert in_torch.dtype == torch.float32
    largest = float(np.abs(in_numpy).max())
    np.testing.assert_allclose(in_numpy, in_torch.numpy(), rtol=1e-4, atol=1e-5 * max(1.0, largest))


@pytest.mark.parametrize(("objective", "sampler"), [case for case in CASES if case[1]["kind"] != "dopri5"])
def test_a_sample_does_not_depend_on_its_batch(make_spec, objective, sampler):
    spec = make_spec(objective, {**sampler, "guidance": 2.0}, {"kind": "class", "classes": 6})
    network = network_over(np, np.asarray)

    def run(indices):
        stream = NoiseStream(2, indices, SHAPE)
        return sample(spec, network, stream.initial, Condition(LABELS[indices]), stream.draw, NUMPY)

    np.testing.assert_allclose(run([0, 1, 2])[1], run([1])[0], rtol=1e-6, atol=1e-6)


def test_generation_needs_no_torch():
    modules = (
        "arrays",
        "condition",
        "ddpm_sampler",
        "guidance",
        "noise",
        "ode",
        "paths",
        "samplers",
        "schedules",
        "sde",
    )
    imports = "\n".join(f"import sora_spec.builders.diffusion.{module}" for module in modules)
    script = (
        f"import sys\n{imports}\nprint([m for m in ('torch', 'torchdiffeq', 'scipy', 'einops') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
