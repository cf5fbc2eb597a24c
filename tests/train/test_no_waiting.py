"""A step never waits for its device, and latents that were kept are those that are encoded now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.builders.vae.interface import IdentityModule
from sora_spec.disk.run_folder import StageName
from sora_spec.train.batch import Latents, Pixels
from sora_spec.train.data.loader import load_batches
from sora_spec.train.latent_source import LatentSource
from sora_spec.train.launched import Launched
from sora_spec.train.ranks import Ranks
from sora_spec.train.stages import denoiser
from sora_spec.train.start import build_task
from sora_spec.train.streams import normal
from sora_spec.train.trainer import Trainer

META = torch.device("meta")
"""Stands for a GPU: nothing can be read back from it, so that whoever waits for a number of its own fails."""
CAUSAL = {
    "kind": "causal3d",
    "compression": {"time": 1, "space": 2},
    "channels": 4,
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "training": {"steps": 2, "batch": 4},
}
DDIM = {"kind": "ddim", "steps": 2}
SPECS: dict[str, tuple[StageName, dict[str, Any]]] = {
    "denoiser": ("denoiser", {"vae": CAUSAL, "patch__space": 2, "train__accumulation": 2}),
    "learned variance": ("denoiser", {"objective": {"kind": "ddpm"}, "backbone__learn_sigma": True, "sampler": DDIM}),
    "recomputation": ("denoiser", {"train__recompute": {"kind": "blocks", "every": 1}}),
    "vae": ("vae", {"vae": CAUSAL, "patch__space": 2}),
}


class Copies(TorchDispatchMode):
    """Counts copies between the two devices, and how many of them are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.up = self.waited = self.down = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            self.down += 1
        result = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            if source.device != result.device:
                self.down += source.is_meta
                self.up += result.is_meta
                self.waited += not kwargs.get("non_blocking", len(args) > 2 and args[2])
        return result


@pytest.mark.parametrize("name", SPECS)
def test_a_step_never_waits_for_the_device(
    tiny_spec: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoiser, "load_named_vae", build_vae)  # with weights of no run
    stage, fields = SPECS[name]
    trainer = Trainer(build_task(tiny_spec(**fields), stage, None, Ranks(0, 1, META)), Ranks(0, 1, META))
    order = trainer.order(0)
    batches = load_batches(trainer.task.dataset, order, 0)
    launched: list[Launched] = []
    with Copies() as copies:
        for step in range(2):
            launched.append(trainer.step(step, batches, order))
    assert (copies.down, copies.waited) == (0, 0)
    assert copies.up >= 2 * trainer.settings.accumulation  # the clips of every micro-batch at least
    assert all(one.values.device == META for one in launched)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        launched[0].result()  # what would happen inside a step


def test_latents_of_a_kept_posterior_are_those_encoded_now(tiny_spec: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    vae = build_vae(tiny_spec(vae=CAUSAL, patch__space=2))
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vae.normalise = lambda z: 0.5 * z - 1  # statistics that are not those of a fresh VAE
    pixels = Pixels(torch.randint(256, (3, 4, 16, 16, 3), dtype=torch.uint8), torch.arange(3))
    source = LatentSource(vae, 7, torch.device("cpu"))
    with torch.no_grad():
        mean, logvar = vae.posterior(pixels.video(source.device))
    now = source.latents(pixels, [5, 6, 9])
    assert torch.equal(source.latents(Latents(mean, logvar, pixels.labels), [5, 6, 9]), now)
    noise = normal(7, "posterior", [5, 6, 9], (4, 4, 8, 8))
    assert torch.allclose(now, 0.5 * (mean + torch.exp(0.5 * logvar) * noise) - 1, atol=1e-6)
    assert not torch.equal(source.latents(pixels, [5, 6, 10])[2], now[2])
    without = replace(source, vae=IdentityModule()).latents(pixels, [5, 6, 9])
    assert torch.equal(without, pixels.video(source.device))
