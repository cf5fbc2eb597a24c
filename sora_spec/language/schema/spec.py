"""The root of a spec: every section, and the shapes that follow from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sora_spec.language.schema.backbone import Backbone, NoTemporal, Temporal
from sora_spec.language.schema.clip import Clip, Patch
from sora_spec.language.schema.condition import Condition, NoCondition
from sora_spec.language.schema.export import Export
from sora_spec.language.schema.objective import Objective, Sampler
from sora_spec.language.schema.section import Section
from sora_spec.language.schema.training import Hardware, Parallel, Train
from sora_spec.language.schema.vae import Vae


class Spec(Section):
    """One video-diffusion system: VAE, network, objective, training, export."""

    version: Literal[1]
    """Version of the language, apart from the package's version."""
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the system; also the default name of its run folder."""
    clip: Clip
    """The clip that is trained and generated, in pixels."""
    vae: Vae
    """The VAE between pixels and latents."""
    patch: Patch
    """How latents become tokens."""
    backbone: Backbone
    """The denoising network."""
    temporal: Temporal = NoTemporal.model_construct()
    """How the network sees time."""
    condition: Condition = NoCondition.model_construct()
    """What steers the generation."""
    objective: Objective
    """What the network learns."""
    sampler: Sampler
    """How a video is drawn from it."""
    train: Train = Train.model_construct()
    """Training of the denoiser."""
    parallel: Parallel = Parallel.model_construct()
    """How ranks share the work."""
    hardware: Hardware = Hardware.model_construct()
    """The machine the plan is made for."""
    export: Export = Export.model_construct()
    """What is exported."""
