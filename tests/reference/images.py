"""DiT and SiT: network, loss, sampler, spacing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from sora_spec.builders.diffusion.losses import build_loss
from sora_spec.builders.diffusion.samplers import Condition, sample
from sora_spec.builders.diffusion.schedules import build_schedule, respaced
from sora_spec.builders.diffusion.torch_arrays import TORCH
from sora_spec.language.schema.objective import Ddpm, Spacing
from tests.reference.official import load_file, stand_ins
from tests.reference.row import Noise, Row, awake, ours_from, relative, small

DIT, SIT = "facebookresearch/DiT ed81ce2", "willisma/SiT 947f95b"
TINY = ["clip.height=64", "clip.width=64", "condition.classes=10"]
SIZE: dict[str, Any] = {"input_size": 8, "hidden_size": 48, "depth": 4, "num_heads": 4, "num_classes": 10}
SAME = 1e-5
"""What rounding in float32 leaves of two ways to the same number."""


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Latents (2, 4, 8, 8), times and labels."""
    torch.manual_seed(1)
    return torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.tensor([2, 7])


def dit_rows(checkout: Path) -> Iterator[Row]:
    """DiT's own code."""
    with stand_ins():
        models, diffusion = _both(checkout, "dit", "diffusion")
    torch.manual_seed(0)
    theirs: Any = awake(models.DiT(**SIZE))
    spec = small("dit", *TINY)
    ours = ours_from(theirs.state_dict(), spec)
    x, time, label = inputs()
    one = x[:, :, None]
    yield Row("DiT", DIT, "network", relative(ours(one, time, label)[:, :, 0], theirs(x, time, label)), SAME)

    step, noise = time.long(), torch.randn_like(x)
    for steps in (1000, 250):
        process = diffusion.create_diffusion("", diffusion_steps=steps)
        at = step * steps // 1000
        expected = process.training_losses(theirs, x, at, {"y": label}, noise)["loss"]
        loss = build_loss(small("dit", *TINY, f"objective.steps={steps}"))
        found = loss(lambda a, b: ours(a, b, label), one, at.float(), noise[:, :, None])
        yield Row("DiT", DIT, f"loss of {steps:,} steps", relative(found, expected), SAME)

    for respacing, overrides in (
        ("10", ["sampler.steps=10"]),
        ("ddim10", ["sampler.steps=10", "sampler.spacing=stride"]),
    ):
        process, draws = diffusion.create_diffusion(respacing), Noise((2, 4, 8, 8))
        start = torch.randn(2, 4, 8, 8)
        doubled, labels = torch.cat([start, start]), torch.cat([label, torch.full((2,), 10)])
        arguments = {"y": labels, "cfg_scale": 4.0}
        with draws.patched("randn_like"):
            expected = process.p_sample_loop(
                theirs.forward_with_cfg,
                doubled.shape,
                doubled,
                clip_denoised=False,
                model_kwargs=arguments,
                device="cpu",
            )[:2]
        mine = (one[:, :, None] for one in draws.halves())
        found = sample(
            small("dit", *TINY, *overrides), ours, start[:, :, None], Condition(label), partial(next, mine), TORCH
        )
        yield Row("DiT", DIT, f'sampler, "{respacing}", guidance 4', relative(found[:, :, 0], expected), SAME)

    process, start = diffusion.create_diffusion("ddim20"), torch.randn(2, 4, 8, 8)
    expected = process.ddim_sample_loop(
        theirs, start.shape, start, clip_denoised=False, model_kwargs={"y": label}, device="cpu"
    )
    ddim = small("dit", *TINY, "sampler={kind: ddim, steps: 20, spacing: stride}")
    found = sample(ddim, ours, start[:, :, None], Condition(label), lambda: start, TORCH)[:, :, 0]
    yield Row("DiT", DIT, 'sampler, DDIM, "ddim20"', relative(found, expected), SAME)

    spacings: tuple[tuple[str, Spacing], ...] = (("", "even"), ("ddim", "stride"))
    full = build_schedule(Ddpm(kind="ddpm"))
    for prefix, spacing in spacings:
        counts = (10, 50, 100, 250)
        expected = [step for n in counts for step in sorted(diffusion.space_timesteps(1000, f"{prefix}{n}"))]
        found = [step for n in counts for step in respaced(full, n, spacing).timesteps.tolist()]
        off = relative(torch.tensor(found).float(), torch.tensor(expected).float())
        yield Row("DiT", DIT, f'spacing, "{prefix}N" for N of 10, 50, 100, 250', off, 0.0)


def _both(checkout: Path, name: str, package: str) -> tuple[Any, Any]:
    models = load_file(checkout / "models.py", f"official_{name}_models")
    return models, load_file(checkout / package / "__init__.py", f"official_{name}_{package}")


def sit_rows(checkout: Path) -> Iterator[Row]:
    """SiT's own code."""
    with stand_ins():
        models, transport = _both(checkout, "sit", "transport")
    torch.manual_seed(0)
    theirs: Any = awake(models.SiT(**SIZE, learn_sigma=True))
    spec = small("sit", *TINY)
    ours = ours_from(theirs.state_dict(), spec)
    x, _, label = inputs()
    time, one = torch.tensor([0.03, 0.7]), x[:, :, None]
    yield Row("SiT", SIT, "network", relative(ours(one, time, label)[:, :4, 0], theirs(x, time, label)), SAME)

    noise = torch.randn_like(x)
    for path in ("linear", "gvp", "vp"):
        plan = transport.create_transport({"linear": "Linear", "gvp": "GVP", "vp": "VP"}[path])
        with mock.patch("torch.rand", return_value=time), mock.patch("torch.randn_like", return_value=noise):
            terms = plan.training_losses(theirs, x, {"y": label})
            at = plan.sample(x)[0]
        loss = build_loss(small("sit", *TINY, f"objective.path={path}"))
        found = loss(lambda a, b: ours(a, b, label), one, at, noise[:, :, None])
        yield Row("SiT", SIT, f"loss on the {path} path", relative(found, terms["loss"]), SAME)

    sampler, start = transport.Sampler(transport.create_transport()), torch.randn(2, 4, 8, 8)
    doubled, labels = torch.cat([start, start]), torch.cat([label, torch.full((2,), 10)])
    arguments = {"y": labels, "cfg_scale": 4.0}
    for kind, method, points in (("euler", "euler", 11), ("heun", "heun2", 11), ("dopri5", "dopri5", 50)):
        run = sampler.sample_ode(sampling_method=method, num_steps=points)
        expected = run(doubled, theirs.forward_with_cfg, **arguments)[-1][:2]
        steps = "" if kind == "dopri5" else f", steps: {points - 1}"
        changed = small("sit", *TINY, f"sampler={{kind: {kind}, guidance: 4.0, guidance_channels: 3{steps}}}")
        found = sample(changed, ours, start[:, :, None], Condition(label), lambda: start, TORCH)[:, :, 0]
        # An adaptive solver measures its error over the doubled batch there, and over the samples here.
        limit = 2e-3 if kind == "dopri5" else SAME
        yield Row("SiT", SIT, f"sampler, {kind}, guidance 4", relative(found, expected), limit)
    run = sampler.sample_sde(diffusion_form="sigma", last_step="Mean", last_step_size=0.04, num_steps=11)
    draws = Noise((2, 4, 8, 8))
    with draws.patched("randn"):
        expected = run(doubled, theirs.forward_with_cfg, **arguments)[-1][:2]
    mine = (one[:, :, None] for one in draws.halves())
    changed = small("sit", *TINY, "sampler.steps=10", "sampler.guidance=4.0")
    found = sample(changed, ours, start[:, :, None], Condition(label), partial(next, mine), TORCH)[:, :, 0]
    yield Row("SiT", SIT, "sampler, SDE (specs/sit.yaml), guidance 4", relative(found, expected), SAME)
