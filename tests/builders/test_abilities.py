"""What the language says can be built is built here, kind by kind; for what it says cannot, there is nothing here."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.losses import LOSSES, build_loss
from sora_spec.builders.diffusion.samplers import NUMPY, Condition, sample
from sora_spec.builders.vae.from_spec import VAES, build_vae
from sora_spec.errors import UserError
from sora_spec.language.abilities import UNBUILT, buildable
from sora_spec.language.grammar import kinds_of
from sora_spec.language.loading import check, load_spec
from sora_spec.language.packaged import packaged_names
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes
from sora_spec.language.source import parse_document
from sora_spec.language.span import Text

BASE: dict[str, Any] = {
    "version": 1,
    "name": "one-kind",
    "clip": {"frames": 4, "height": 16, "width": 16},
    "vae": {"kind": "image_kl", "compression": {"time": 1, "space": 2}, "multipliers": [1, 1], "width": 32},
    "patch": {"time": 1, "space": 2},
    "backbone": {"kind": "transformer", "depth": 2, "width": 48, "heads": 4},
    "objective": {"kind": "interpolant"},
    "sampler": {"kind": "heun", "steps": 2},
}
FIELDS: dict[str, dict[str, Any]] = {
    "windowed": {"window": [2, 2, 2]},
    "class": {"classes": 3},
    "text": {"encoder": "clip", "pooled": True},
    "causal3d": {"compression": {"time": 2, "space": 2}, "multipliers": [1, 1], "width": 8, "channels": 4},
    "image_kl": BASE["vae"],
    "transformer": BASE["backbone"],
}
"""What a kind needs beside its name."""
AROUND: dict[str, dict[str, Any]] = {
    "causal3d": {"clip": {"frames": 5, "height": 16, "width": 16}},
    "cross_attention": {"condition": {"kind": "text", "encoder": "clip", "tokens": 6}},
    "ddpm": {"objective": {"kind": "ddpm"}, "sampler": {"kind": "ddpm", "steps": 2}},
    "ddim": {"objective": {"kind": "ddpm"}, "sampler": {"kind": "ddim", "steps": 2}},
}
"""What other sections it needs."""
SECTIONS = (*UNBUILT, "vae.tiling", "condition", "objective", "sampler")
KINDS = [(section, kind) for section in SECTIONS for kind in kinds_of(section)]


def values_of(section: str, kind: str) -> dict[str, Any]:
    values = copy.deepcopy(BASE) | AROUND.get(kind, {})
    *above, last = section.split(".")
    where = values
    for name in above:
        where = where[name]
    if section not in AROUND.get(kind, {}):
        where[last] = {"kind": kind, **FIELDS.get(kind, {})}
    return values


def conditions(spec: Spec, batch: int) -> Iterator[torch.Tensor]:
    condition = spec.condition
    if condition.kind == "class":
        yield torch.zeros(batch, dtype=torch.int64)
    elif condition.kind == "text":
        yield torch.zeros(batch, *(() if condition.pooled else (condition.tokens,)), condition.width)


def run(spec: Spec) -> None:
    """Every part of a spec for once: VAE, network, loss and sampler. Raises where something is not there."""
    shapes = derive_shapes(spec)
    with torch.device("meta"):
        vae, network = build_vae(spec), build_denoiser(spec)
        assert vae.encode(torch.zeros(2, *shapes.video)).shape == (2, *shapes.latent)
        assert vae.decode(torch.zeros(2, *shapes.latent)).shape == (2, *shapes.video)
        given = [*conditions(spec, 2)]
        out = network(torch.zeros(2, *shapes.latent), torch.zeros(2), *given)
        assert out.shape == (2, shapes.out_channels, *shapes.latent[1:])

    latents = torch.ones(1, *shapes.latent)
    zero = torch.zeros(1, shapes.out_channels, *shapes.latent[1:])
    assert build_loss(spec)(lambda x, t: zero, latents, torch.full((1,), 0.5), latents).isfinite().all()

    labels = Condition(*(each[:1].numpy() for each in conditions(spec, 1) if spec.condition.kind == "class"))
    if spec.condition.kind == "text":
        labels = Condition(pooled=np.zeros((1, 1), np.float32))
    drawn = sample(spec, lambda x, t, *_: zero.numpy(), latents.numpy(), labels, latents.numpy, NUMPY)
    assert drawn.shape == latents.shape


@pytest.mark.parametrize(("section", "kind"), KINDS)
def test_every_kind_is_built_or_refused_as_the_language_says(section: str, kind: str) -> None:
    values = values_of(section, kind)
    problems = check(parse_document(Text("kind", repr(values)))).diagnostics
    errors = [problem for problem in problems if problem.severity == "error"]
    spec = Spec.model_validate(values)
    if kind in buildable(section):
        assert errors == []
        run(spec)
        return
    assert [(problem.code[:2], problem.path) for problem in errors if problem.code[:2] == "E4"] == [
        ("E4", f"{section}.kind")
    ]
    with pytest.raises(UserError, match=rf"one-kind cannot be built: nothing builds `{section}: \{{kind: {kind}\}}`"):
        run(spec)


BARRED = [(section, kind) for section, kinds in UNBUILT.items() for kind in kinds]


@pytest.mark.parametrize(("section", "kind"), BARRED)
def test_what_is_refused_has_nothing_behind_it(section: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in UNBUILT:
        monkeypatch.setitem(UNBUILT, each, ())
    with pytest.raises((AssertionError, KeyError)):
        run(Spec.model_validate(values_of(section, kind)))


def test_tables_of_constructors_hold_the_kinds_that_the_language_says() -> None:
    assert list(VAES) == buildable("vae")
    assert list(LOSSES) == buildable("objective")


@pytest.mark.parametrize("name", packaged_names())
def test_every_packaged_spec_is_built(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        build_vae(spec)
        build_denoiser(spec)
