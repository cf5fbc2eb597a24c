"""What the loop asks of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from sora_spec.train.batch import Batch
from sora_spec.train.data.clips import ClipDataset
from sora_spec.train.settings import Settings

Terms = dict[str, Tensor]
"""Scalars, means over a micro-batch: `loss` with its gradient, the others detached."""


class Task(Protocol):
    """One stage: what is trained on what, and how its progress is shown."""

    @property
    def settings(self) -> Settings:
        """How it is trained."""
        ...

    @property
    def module(self) -> nn.Module:
        """What is trained; already on its device and cut over ranks."""
        ...

    @property
    def dataset(self) -> ClipDataset:
        """What it is trained on."""
        ...

    def terms(self, batch: Batch, step: int, positions: Sequence[int]) -> Terms:
        """Loss of one micro-batch: samples `positions` of the global batch of update `step`, counted from 0."""
        ...

    def held(self) -> Iterable[Tensor]:
        """Tensors that outlive a step beside those of `module`: frozen parts and tables."""
        ...

    @property
    def vae_digest(self) -> str | None:
        """Digest of the frozen VAE whose latents the module learns; None where there is none."""
        ...

    @property
    def text_digest(self) -> str | None:
        """Digest of the frozen text encoder whose features steer the module; None where there is none."""
        ...

    def describe(self) -> dict[str, str]:
        """Facts for `--dry-run`, in the order they are shown."""
        ...

    def show(self, path: Path) -> None:
        """Write pictures of what the module can do, to `path` with a suffix appended. All ranks call it."""
        ...

    @property
    def measures(self) -> bool:
        """Whether `finish` has anything to do."""
        ...

    def finish(self, kept: Path, step: int, stopping: Callable[[], bool]) -> bool:
        """Measure once, after the last update, which is `step`, with the averaged weights in place.

        `kept`: file of what is measured so far. All ranks call it. False when `stopping` said so before the end.
        """
        ...
