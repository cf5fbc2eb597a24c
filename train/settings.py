"""What the loop needs to know of a stage: its own section, and what of `train` counts for both stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sora_spec.disk.run_folder import StageName
from sora_spec.errors import UserError
from sora_spec.language.abilities import vae_to_train
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.training import Train
from sora_spec.language.schema.vae import VaeTraining

Optimisation: TypeAlias = Train | VaeTraining
"""A stage's own section. What both have says how it is optimised; a field that only one has is no part of it."""


@dataclass(frozen=True)
class Settings:
    """One stage's training."""

    stage: StageName
    data: str
    own: Optimisation
    train: Train
    """Cadences, seed, workers, and where and how fast the average is kept: the same for both stages."""
    accumulation: int = 1
    clip_grad_from: int = 0


def stage_settings(spec: Spec, stage: StageName) -> Settings:
    """Settings of one stage. Raises UserError when it has nothing to train or no data is named."""
    return _vae_settings(spec) if stage == "vae" else _denoiser_settings(spec)


def _denoiser_settings(spec: Spec) -> Settings:
    train = spec.train
    if train.data is None:
        raise UserError(
            f"{spec.name}: train.data is missing: nothing to train on",
            "add train.data=FOLDER to the command; `sora-spec data digits data/digits` makes a data set to try",
        )
    return Settings("denoiser", train.data, train, train, train.accumulation, train.clip_grad_from)


def _vae_settings(spec: Spec) -> Settings:
    vae, train = vae_to_train(spec), spec.train
    data = vae.training.data or train.data
    if data is None:
        raise UserError(
            f"{spec.name}: neither vae.training.data nor train.data is given: nothing to train on",
            "add vae.training.data=FOLDER to the command; `sora-spec data clips data/clips` copies a few real clips",
        )
    return Settings("vae", data, vae.training, train)
