"""What the loop needs to know, gathered from `train` for the denoiser and from `vae.training` for the VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sora_spec.disk.run_folder import StageName
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.training import AdamW, Precision
from sora_spec.language.schema.vae import Causal3dVae, ImageKlVae


@dataclass(frozen=True)
class Settings:
    """One stage's training. The names are those of the spec."""

    stage: StageName
    data: str
    batch: int
    accumulation: int
    precision: Precision
    optimizer: AdamW
    warmup: int
    schedule: Literal["constant", "cosine"]
    clip_grad: float | None
    clip_grad_from: int
    ema: float
    ema_device: Literal["device", "cpu"]
    ema_warmup: bool
    steps: int
    seed: int
    log_every: int
    checkpoint_every: int
    keep: int
    sample_every: int | None
    workers: int


def stage_settings(spec: Spec, stage: StageName) -> Settings:
    """Settings of one stage. The cadences, the seed and the number of workers are `train`'s for both.

    Raises UserError when the stage has nothing to train or no data is named.
    """
    return _vae_settings(spec) if stage == "vae" else _denoiser_settings(spec)


def _denoiser_settings(spec: Spec) -> Settings:
    train = spec.train
    if train.data is None:
        raise UserError(
            f"{spec.name}: train.data is missing: nothing to train on",
            "add train.data=FOLDER to the command; `sora-spec data digits data/digits` makes a data set to try",
        )
    return Settings(
        stage="denoiser",
        data=train.data,
        batch=train.batch,
        accumulation=train.accumulation,
        precision=train.precision,
        optimizer=train.optimizer,
        warmup=train.warmup,
        schedule=train.schedule,
        clip_grad=train.clip_grad,
        clip_grad_from=train.clip_grad_from,
        ema=train.ema,
        ema_device=train.ema_device,
        ema_warmup=train.ema_warmup,
        steps=train.steps,
        seed=train.seed,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        keep=train.keep,
        sample_every=train.sample_every,
        workers=train.workers,
    )


def _vae_settings(spec: Spec) -> Settings:
    vae, train = spec.vae, spec.train
    if not isinstance(vae, ImageKlVae | Causal3dVae):
        raise UserError(
            f"{spec.name}: a VAE of kind {vae.kind!r} has nothing to train",
            "train the network itself: --stage denoiser; VAEs that can be trained: image_kl, causal3d",
        )
    training = vae.training
    data = training.data or train.data
    if data is None:
        raise UserError(
            f"{spec.name}: neither vae.training.data nor train.data is given: nothing to train on",
            "add vae.training.data=FOLDER to the command; `sora-spec data clips data/clips` copies a few real clips",
        )
    return Settings(
        stage="vae",
        data=data,
        batch=training.batch,
        accumulation=1,
        precision=training.precision,
        optimizer=training.optimizer,
        warmup=training.warmup,
        schedule=training.schedule,
        clip_grad=training.clip_grad,
        clip_grad_from=0,
        ema=training.ema,
        ema_device=train.ema_device,
        ema_warmup=train.ema_warmup,
        steps=training.steps,
        seed=train.seed,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        keep=train.keep,
        sample_every=train.sample_every,
        workers=train.workers,
    )
