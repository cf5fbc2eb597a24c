"""Real training steps on the CPU: what the allocator says equals what the graph says."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.losses import build_loss
from sora_spec.builders.trace.allocator import watched
from sora_spec.graph import Setting, graph_from_spec, memory
from sora_spec.graph.passes.state import AdamWKind
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.condition import ClassCondition, TextCondition
from sora_spec.language.shapes import derive_shapes
from sora_spec.train.recompute import recompute_blocks
from tests.support.adamw import optimizer_memory

SPECS = Path(__file__).parents[2] / "specs"
TINY = sorted(path.stem for path in SPECS.glob("tiny-*.yaml"))


class Step:
    """A model with its loss and data."""

    def __init__(self, name: str, changes: list[str], batch: int) -> None:
        self.spec = spec = load_spec(SPECS / f"{name}.yaml", changes)
        self.network = build_denoiser(spec)
        recompute_blocks(self.network.blocks, spec.train.recompute)
        self.loss = build_loss(spec)
        latent = derive_shapes(spec).latent
        self.latents, self.noise = torch.randn(batch, *latent), torch.randn(batch, *latent)
        self.time = torch.rand(batch)
        self.condition: tuple[Tensor | None, ...] = (None,)
        if isinstance(spec.condition, ClassCondition):
            self.condition = (torch.zeros(batch, dtype=torch.int64),)
        elif isinstance(text := spec.condition, TextCondition):
            mask = torch.ones(batch, text.tokens, dtype=torch.int64)
            self.condition = (torch.randn(batch, text.tokens, text.width), mask if text.masked else None)

    def __call__(self) -> None:
        def denoise(noisy: Tensor, time: Tensor) -> Tensor:
            return self.network(noisy, time, *self.condition)

        loss = self.loss(denoise, self.latents, self.time, self.noise).mean()
        torch.autograd.backward(loss)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("changes", [[], ["train.recompute.kind=blocks"], ["temporal.kind=joint"]], ids=str)
def test_a_real_step_allocates_what_the_graph_says(name: str, changes: list[str]) -> None:
    step = Step(name, changes, batch=2)
    step()  # the loss puts its tables on the device
    step.network.zero_grad(set_to_none=True)
    gc.collect()  # what an earlier step left in cycles must not be freed meanwhile
    _, peak, left = watched(step)
    setting = Setting(batch=2, attention="cpu", threads=torch.get_num_threads())
    found = memory(graph_from_spec(step.spec, "denoiser_step", setting))
    assert peak == pytest.approx(found.peak_bytes - found.resident_bytes, rel=1e-4)
    assert left == found.gradient_bytes


@pytest.mark.parametrize("kind", ["forloop", "foreach", "fused"])
def test_adamw_allocates_what_the_closed_form_says(kind: AdamWKind) -> None:
    step = Step("tiny-sit-digits", [], batch=1)
    optimizer = torch.optim.AdamW(step.network.parameters(), foreach=kind == "foreach", fused=kind == "fused")
    step()
    found = optimizer_memory(graph_from_spec(step.spec, "denoiser_step"), kind)
    gc.collect()
    _, peak, left = watched(optimizer.step)
    # The scalars of a step are not in the closed form: 4 bytes for each parameter.
    assert left == found.state_bytes
    assert peak - left == pytest.approx(found.temporary_bytes, rel=1e-3, abs=64)
    gc.collect()
    _, peak, left = watched(optimizer.step)
    assert left == 0
    assert peak == pytest.approx(found.temporary_bytes, rel=1e-3, abs=64)
