"""Parameters and FLOPs of the parts of a system, for one forward pass of one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sora_spec.plan.job import Job
from sora_spec.plan.memory.schedule import schedule_of
from sora_spec.plan.memory.text_encoders import encoder_work
from sora_spec.recipe.parts import ROLES, PartName


@dataclass(frozen=True)
class Part:
    """What one part has and does; one that a spec has not has and does nothing. None: not known."""

    parameters: int | None
    forward_flops: int | None
    """A multiply-accumulate is 2."""

    @property
    def forward_macs(self) -> int | None:
        """Multiply-accumulates: what papers on image transformers call FLOPs."""
        return None if self.forward_flops is None else self.forward_flops // 2


_NOTHING = Part(0, 0)
_SEVERAL = 2
"""A batch whose graph a plan is likely to have made already; its FLOPs give those of one sample."""


def components_of(job: Job) -> dict[PartName, Part]:
    """The parts of a job's spec."""
    return {name: _part(job, name) for name in ROLES}


def _part(job: Job, name: PartName) -> Part:
    match name:
        case "denoiser":
            return _denoiser(job)
        case "vae_encoder":
            return _vae(job, "encoder")
        case "vae_decoder":
            return _vae(job, "decoder")
        case "text_encoder":
            return _text(job)
        case unknown:
            assert_never(unknown)


def _denoiser(job: Job) -> Part:
    schedule = schedule_of(job.spec, "denoiser", job.setting("denoiser", _SEVERAL))
    return Part(schedule.parameters, schedule.forward_flops(1))


def _vae(job: Job, half: str) -> Part:
    """Half a VAE. SD's 1x1 convolutions around the latents belong to the half that runs them."""
    if not job.has_vae:
        return _NOTHING
    component, batch = ("vae_encode", _SEVERAL) if half == "encoder" else ("vae_decode", 1)
    schedule = schedule_of(job.spec, component, job.setting(component, batch, "fp32"))
    owned = ("vae.encoder", "vae.quant_conv") if half == "encoder" else ("vae.decoder", "vae.post_quant_conv")
    parameters = 0
    for weight in schedule.weights:
        if weight.resident.role == "parameter":
            part = weight.part if weight.part != "vae" else f"vae.{weight.resident.name.partition('.')[0]}"
            parameters += weight.resident.numel * weight.times * (part in owned)
    return Part(parameters, schedule.forward_flops(1))


def _text(job: Job) -> Part:
    work = encoder_work(job)
    if work is not None:
        return Part(work.parameters, work.forward_flops)
    return Part(None, None) if job.spec.condition.kind == "text" else _NOTHING
