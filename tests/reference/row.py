"""One line of the parity table, and what all systems' comparisons share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from sora_spec.builders.denoiser import Denoiser, build_denoiser
from sora_spec.builders.weights.dit import from_official
from sora_spec.language.loading import load_spec
from sora_spec.language.schema.spec import Spec

SHIPPED_TINY = ["backbone.depth=4", "backbone.width=48", "backbone.heads=4"]
"""Overrides that make a shipped spec small and change none of its rules."""


@dataclass(frozen=True)
class Row:
    """How far ours is from the other."""

    system: str
    source: str
    """What it was compared with."""
    compared: str
    error: float
    """‖ours − theirs‖ / ‖theirs‖."""
    limit: float
    """Above this the two are not the same; infinite where they differ by design."""


def relative(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − theirs‖ / ‖theirs‖."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return ((ours - theirs).double().norm() / theirs.double().norm()).item()


def small(name: str, *changes: str) -> Spec:
    """A shipped spec made small."""
    return load_spec(f"specs/{name}.yaml", [*SHIPPED_TINY, *changes])


def awake(network: nn.Module) -> nn.Module:
    """A network with no weight at zero, ready to be run."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval().requires_grad_(False)


def ours_from(state: dict[str, Tensor], spec: Spec) -> Denoiser:
    """Our network with the weights of an official one."""
    network = build_denoiser(spec)
    network.load_state_dict(from_official(state, spec))
    return network.eval().requires_grad_(False)


class Noise:
    """The same draws for both: of twice the batch for a program that samples guided and unguided halves."""

    def __init__(self, shape: tuple[int, ...], draws: int = 200) -> None:
        self.drawn = torch.randn(draws, 2 * shape[0], *shape[1:], generator=torch.Generator().manual_seed(7))
        self.batch = shape[0]

    def whole(self) -> Iterator[Tensor]:
        """For the program."""
        yield from self.drawn

    def halves(self) -> Iterator[Tensor]:
        """For ours, which draws for the samples alone."""
        yield from (one[: self.batch] for one in self.drawn)

    def patched(self, name: str, arrange: Callable[[Tensor], Tensor] = lambda x: x) -> Any:
        """A context in which `torch.NAME` gives these draws to the program."""
        draws = self.whole()
        return mock.patch(f"torch.{name}", side_effect=lambda *args, **rest: arrange(next(draws)))
