"""`objective`: what the network learns, and `sampler`: how a video is drawn from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sora_spec.language.schema.section import Positive, Section, Small


class Ddpm(Section):
    """Denoising diffusion over discrete steps (arXiv 2006.11239, 2102.09672), as in DiT. Step 0 is clean."""

    kind: Literal["ddpm"]
    steps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Number of noise levels in training."""
    schedule: Literal["linear", "cosine"] = "linear"
    """`linear`: betas from `beta_start` to `beta_end`. `cosine`: squared-cosine alphas (arXiv 2102.09672 eq. 17)."""
    beta_start: Annotated[float, Field(gt=0, lt=1)] | None = None
    """First beta of the linear schedule; left out, 1e-4 · 1000/steps, as upstream."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Last beta of the linear schedule; left out, 0.02 · 1000/steps, as upstream."""
    prediction: Literal["noise", "velocity"] = "noise"
    """What the network predicts: ε, or v = √ᾱ ε − √(1−ᾱ) x₀ (arXiv 2202.00512)."""
    variance: Literal["learned_range", "fixed_small", "fixed_large"] = "learned_range"
    """Reverse-process variance: learned between β̃ and β (DiT), or one of the two."""
    zero_terminal_snr: bool = False
    """Rescale the betas so that the last step is pure noise (arXiv 2305.08891). Needs `prediction: velocity`."""


class Interpolant(Section):
    """A stochastic interpolant (SiT, arXiv 2401.08740): x_t = α(t)·data + σ(t)·noise. t = 0 is noise, t = 1 data."""

    kind: Literal["interpolant"]
    path: Literal["linear", "gvp", "vp"] = "linear"
    """Linear: α = t, σ = 1−t. GVP: sin and cos of πt/2. VP: the variance-preserving diffusion."""
    prediction: Literal["velocity", "score", "noise"] = "velocity"
    """What the network predicts."""
    weighting: Literal["none", "velocity", "likelihood"] = "none"
    """Loss weight of score and noise prediction: 1, (g/σ)² or g/σ²."""
    sigma_min: Positive = 0.1
    """Smallest noise rate of the VP path."""
    sigma_max: Positive = 20.0
    """Largest noise rate of the VP path."""


Objective = Annotated[Ddpm | Interpolant, Field(discriminator="kind")]


Spacing = Literal["even", "stride"]
"""Which training steps a sampler visits."""


class Guided(Section):
    """What every sampler has."""

    guidance: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Classifier-free guidance scale; 1 is off. Above 1 the condition must have been dropped out in training."""
    guidance_channels: Small | None = None
    """How many latent channels are guided, all when left out, as in Latte. DiT, SiT, OpenDiT and Open-Sora guide the
    first 3 of 4: their pictures need `guidance_channels: 3`."""


class DdpmSampler(Guided):
    """Ancestral sampling on respaced steps, with the learned variance where there is one (DiT's default)."""

    kind: Literal["ddpm"]
    steps: Annotated[int, Field(ge=1, le=100_000)] = 250
    """Denoising steps, out of the training steps."""
    spacing: Spacing = "even"
    """`even`: spread from the first to the last training step (`"250"` upstream). `stride`: every n-th from the first
    on (`"ddim250"` upstream), which leaves out the noisiest few; only some numbers of steps can be had so."""


class DdimSampler(Guided):
    """DDIM (arXiv 2010.02502) on respaced steps."""

    kind: Literal["ddim"]
    steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Denoising steps."""
    eta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """0 is deterministic, 1 is DDPM's noise."""
    spacing: Spacing = "even"
    """`even`: spread from the first to the last training step (`"50"` upstream). `stride`: every n-th from the first on
    (`"ddim50"` upstream), which leaves out the noisiest few; only some numbers of steps can be had so."""


class EulerSampler(Guided):
    """The probability-flow ODE with Euler steps."""

    kind: Literal["euler"]
    steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Integration steps. SiT counts time points: its 50 are 49 steps here."""


class HeunSampler(Guided):
    """The probability-flow ODE with Heun's second-order steps; two network evaluations each."""

    kind: Literal["heun"]
    steps: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Integration steps. SiT counts time points: its 50 are 49 steps here."""


class Dopri5Sampler(Guided):
    """The probability-flow ODE with adaptive Dormand–Prince steps (SiT's default)."""

    kind: Literal["dopri5"]
    atol: Positive = 1e-6
    """Absolute tolerance."""
    rtol: Positive = 1e-3
    """Relative tolerance."""


class EulerMaruyamaSampler(Guided):
    """The reverse SDE with Euler–Maruyama steps and SiT's last-step rules."""

    kind: Literal["euler_maruyama"]
    steps: Annotated[int, Field(ge=1, le=100_000)] = 249
    """Integration steps before the last one. SiT counts time points: its 250 are 249 steps here."""
    diffusion: Literal["constant", "sbdm", "sigma", "linear", "decreasing", "increasing_decreasing"] = "sigma"
    """Shape of the diffusion coefficient."""
    diffusion_scale: Positive = 1.0
    """Factor on the diffusion coefficient."""
    last_step: Literal["mean", "tweedie", "euler", "none"] = "mean"
    """The last step, taken without noise."""
    last_step_size: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.04
    """Length of the last step in time."""


Sampler = Annotated[
    DdpmSampler | DdimSampler | EulerSampler | HeunSampler | Dopri5Sampler | EulerMaruyamaSampler,
    Field(discriminator="kind"),
]
