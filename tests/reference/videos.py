"""Latte and Open-Sora 1.0's STDiT: network, loss, sampler."""

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
from sora_spec.builders.diffusion.torch_arrays import TORCH
from tests.reference.official import load_file, load_stdit, stand_ins
from tests.reference.row import Noise, Row, awake, ours_from, relative, small

LATTE, STDIT = "Vchitect/Latte b27c24a", "hpcaitech/Open-Sora v1.0.0 (c861b98)"
SAME = 1e-5


def frames_first(x: Tensor) -> Tensor:
    """(B, C, F, H, W) ⇄ Latte's (B, F, C, H, W)."""
    return x.transpose(1, 2)


def latte_rows(checkout: Path) -> Iterator[Row]:
    """Latte's own code."""
    with stand_ins():
        models = load_file(checkout / "models/latte.py", "official_latte")
        diffusion = load_file(checkout / "diffusion/__init__.py", "official_latte_diffusion")
    torch.manual_seed(0)
    size = {"input_size": 8, "hidden_size": 48, "depth": 4, "num_heads": 4, "num_classes": 10, "num_frames": 3}
    theirs: Any = awake(models.Latte(**size, extras=2))
    tiny = ["clip.height=64", "clip.width=64", "clip.frames=3", "condition.classes=10", "sampler.steps=10"]
    spec = small("latte", *tiny)
    ours = ours_from(theirs.state_dict(), spec)
    x, time, label = torch.randn(2, 4, 3, 8, 8), torch.tensor([3.0, 700.0]), torch.tensor([2, 7])
    expected = frames_first(theirs(frames_first(x), time, label))
    yield Row("Latte", LATTE, "network", relative(ours(x, time, label), expected), SAME)

    noise, process = torch.randn_like(x), diffusion.create_diffusion("")
    terms = process.training_losses(theirs, frames_first(x), time.long(), {"y": label}, frames_first(noise))
    found = build_loss(spec)(lambda a, b: ours(a, b, label), x, time, noise)
    yield Row("Latte", LATTE, "loss", relative(found, terms["loss"]), SAME)

    start, draws = torch.randn(2, 4, 3, 8, 8), Noise((2, 4, 3, 8, 8))
    doubled, labels = torch.cat([start, start]), torch.cat([label, torch.full((2,), 10)])
    process = diffusion.create_diffusion("10")
    with draws.patched("randn_like", frames_first):
        expected = process.p_sample_loop(
            theirs.forward_with_cfg,
            frames_first(doubled).shape,
            frames_first(doubled),
            clip_denoised=False,
            model_kwargs={"y": labels, "cfg_scale": 7.0, "use_fp16": False},
            device="cpu",
        )[:2]
    mine = draws.halves()
    found = sample(spec, ours, start, Condition(label), partial(next, mine), TORCH)
    yield Row("Latte", LATTE, 'sampler, "10", guidance 7', relative(found, frames_first(expected)), SAME)


class Prompts:
    """Open-Sora's text encoder, as its sampler sees it."""

    def __init__(self, features: Tensor, mask: Tensor, null: Tensor) -> None:
        self.features, self.mask, self.no_prompt = features, mask, null

    def encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Features (n, 1, M, width) and the mask of the padding."""
        return {"y": self.features[:, None], "mask": self.mask}

    def null(self, n: int) -> Tensor:
        """What the network keeps for no prompt."""
        return self.no_prompt[None, None].repeat(n, 1, 1, 1)


def stdit_rows(checkout: Path) -> Iterator[Row]:
    """Open-Sora 1.0's own code, on clips that are not square."""
    network, process = load_stdit(checkout)
    torch.manual_seed(0)
    size = {"hidden_size": 48, "depth": 4, "num_heads": 4, "caption_channels": 24, "model_max_length": 9}
    scales = {"space_scale": 0.5, "time_scale": 2 / 3}
    theirs: Any = awake(network(input_size=(4, 8, 6), **size, **scales))
    tiny = ["clip.height=64", "clip.width=48", "clip.frames=4", "condition.encoder=mine", "condition.width=24"]
    tiny += ["condition.tokens=9", "sampler.steps=10"]
    tiny += [f"backbone.position.{name}={value!r}" for name, value in scales.items()]
    spec = small("stdit", *tiny)
    ours = ours_from(theirs.state_dict(), spec)
    x, time = torch.randn(2, 4, 4, 8, 6), torch.tensor([3.0, 700.0])
    text, mask = torch.randn(2, 9, 24), torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    for what, given in (("all tokens", None), ("masked prompts", mask)):
        error = relative(ours(x, time, text, given), theirs(x, time, text[:, None], given))
        yield Row("STDiT", STDIT, f"network, {what}", error, SAME)

    noise, arguments = torch.randn_like(x), {"y": text[:, None], "mask": mask}
    terms = process(timestep_respacing="").training_losses(theirs, x, time.long(), arguments, noise)
    found = build_loss(spec)(lambda a, b: ours(a, b, text, mask), x, time, noise)
    yield Row("STDiT", STDIT, "loss", relative(found, terms["loss"]), SAME)

    assert ours.null_context is not None
    start, draws = torch.randn(2, 4, 4, 8, 6), Noise((2, 4, 4, 8, 6))
    prompts = Prompts(text, mask, theirs.y_embedder.y_embedding)
    sampler = process(num_sampling_steps=10, cfg_scale=7.0)
    with draws.patched("randn_like"), mock.patch("torch.randn", return_value=start):
        expected = sampler.sample(theirs, prompts, (4, 4, 8, 6), ["a", "b"], "cpu")
    mine, null = draws.halves(), Condition(tokens=ours.null_context.expand(2, 9, 24))
    found = sample(spec, ours, start, Condition(tokens=text, mask=mask, null=null), partial(next, mine), TORCH)
    yield Row("STDiT", STDIT, 'sampler, "10", guidance 7, stored null prompt', relative(found, expected), SAME)
