"""`vae`: the VAE between pixels and latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sora_spec.language.schema.section import Frames, NonNegative, Positive, Probability, Section, Size, Small, Steps
from sora_spec.language.schema.training import AdamW, Precision


class Compression(Section):
    """How many pixels become one latent position along each axis."""

    time: Literal[1, 2, 4, 8] = 1
    """Frames per latent frame. Causal VAEs keep the first frame apart: 1 + k·time frames become 1 + k."""
    space: Literal[1, 2, 4, 8, 16, 32] = 8
    """Rows and columns per latent row and column."""


class KlDecoder(Section):
    """The VAE's own feed-forward decoder."""

    kind: Literal["kl"] = "kl"


class ConsistencyDecoder(Section):
    """A two-step diffusion decoder (DALL·E 3, arXiv consistency models 2303.01469)."""

    kind: Literal["consistency"]
    steps: Annotated[int, Field(ge=1, le=64)] = 2
    """Denoising steps of the decoder."""
    weights: str | None = None
    """Folder or file of the released decoder."""


Decoder = Annotated[KlDecoder | ConsistencyDecoder, Field(discriminator="kind")]


class NoTiling(Section):
    """Encode and decode the whole picture at once."""

    kind: Literal["none"] = "none"


class SpatialTiling(Section):
    """Encode and decode overlapping square tiles one after another, faded into each other.

    Memory then follows the tile and not the clip's size. What lies in a tile no longer sees what lies outside, so the
    result differs a little from that of the whole picture. Training the VAE is not affected.
    """

    kind: Literal["spatial"]
    tile: Size = 256
    """Side of a tile in pixels; a side of the clip that is shorter is not cut. A multiple of the space compression."""
    overlap: Annotated[int, Field(ge=0, le=65_536)] = 64
    """Pixels that neighbouring tiles share, over which they are faded. Below `tile`, a multiple of the compression."""


Tiling = Annotated[NoTiling | SpatialTiling, Field(discriminator="kind")]


class NoPerceptual(Section):
    """No perceptual term."""

    kind: Literal["none"] = "none"


class Lpips(Section):
    """LPIPS over VGG-16 features (arXiv 1801.03924). The weights are read from a local folder, never downloaded."""

    kind: Literal["lpips"]
    weights: str
    """Folder holding `vgg16.safetensors` or `.pth` (torchvision layout) and `lpips_vgg.safetensors` or `.pth`."""
    weight: Positive = 0.1
    """Weight of the term in the loss."""


Perceptual = Annotated[NoPerceptual | Lpips, Field(discriminator="kind")]


class VaeTraining(Section):
    """How `train --stage vae` trains this VAE: reconstruction + KL (+ perceptual)."""

    data: str | None = None
    """Clips to train on; `train.data` when left out."""
    steps: Steps = 10_000
    """Optimiser steps."""
    batch: Size = 8
    """Clips per step."""
    frames: Frames | None = None
    """Frames of one training crop; the clip's when left out. Must obey the VAE's frame rule."""
    crop: Size | None = None
    """Side of the square training crop in pixels; the clip's size when left out."""
    optimizer: AdamW = AdamW.model_construct()
    """Optimiser of this stage."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up: stay, or fall to zero along a half cosine."""
    clip_grad: Positive | None = 1.0
    """Largest gradient norm; `null` for no clipping."""
    ema: Probability = 0.999
    """Decay of the moving average of the weights. 0 keeps no average."""
    precision: Precision = "fp32"
    """Precision of forward and backward; master weights stay fp32."""
    reconstruction: Literal["l1", "mse"] = "l1"
    """Pixel term, averaged over all values."""
    kl_weight: NonNegative = 1e-6
    """Weight of the KL divergence per latent value."""
    perceptual: Perceptual = NoPerceptual.model_construct()
    """Perceptual term."""


class IdentityVae(Section):
    """No VAE: the latents are the pixels. For tests and toys."""

    kind: Literal["identity"]
    compression: Compression = Compression.model_construct(time=1, space=1)
    """Must be 1 and 1."""
    channels: Literal[3] = 3
    """RGB."""


class ImageKlVae(Section):
    """The image autoencoder of Stable Diffusion, run on every frame (arXiv 2112.10752)."""

    kind: Literal["image_kl"]
    compression: Compression = Compression.model_construct(time=1, space=8)
    """Must be time 1 and 2^(number of levels − 1) in space."""
    channels: Small = 4
    """Latent channels."""
    width: Size = 128
    """Channels of the first level."""
    multipliers: Annotated[tuple[Small, ...], Field(strict=False, min_length=1, max_length=6)] = (1, 2, 4, 4)
    """Channels of each level, as multiples of `width`."""
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    """Residual blocks per encoder level; the decoder has one more."""
    groups: Small = 32
    """Groups of every GroupNorm. Must divide every level's channels."""
    scale: Positive = 0.18215
    """Latents are multiplied by this after encoding, so that they have about unit variance."""
    weights: str | None = None
    """Folder in diffusers' format, or an official checkpoint file."""
    decoder: Decoder = KlDecoder.model_construct()
    """What turns latents back into pixels."""
    tiling: Tiling = NoTiling.model_construct()
    """Whether clips are encoded and decoded whole or in tiles. Changes memory and time, and pixels only slightly."""
    training: VaeTraining = VaeTraining.model_construct()
    """How `train --stage vae` trains it."""


class Causal3dVae(Section):
    """A causal 3D convolutional autoencoder (MAGVIT-v2 without its quantiser, arXiv 2310.05737; as in W.A.L.T).

    Norms work per position over channels and time is padded in front only, so that decoding can be streamed exactly.
    """

    kind: Literal["causal3d"]
    compression: Compression = Compression.model_construct(time=4, space=8)
    """Frames and pixels per latent."""
    channels: Small = 16
    """Latent channels."""
    width: Size = 128
    """Channels of the first level."""
    multipliers: Annotated[tuple[Small, ...], Field(strict=False, min_length=1, max_length=6)] = (1, 2, 2, 4)
    """Channels of each level, as multiples of `width`. Level i+1 has half the rows and columns of level i."""
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    """Residual blocks per encoder level; the decoder has one more."""
    weights: str | None = None
    """Safetensors file written by `train --stage vae`."""
    decoder: Decoder = KlDecoder.model_construct()
    """What turns latents back into pixels."""
    tiling: Tiling = NoTiling.model_construct()
    """Whether clips are encoded and decoded whole or in tiles. Changes memory and time, and pixels only slightly."""
    streaming: bool = False
    """Encode and decode one latent frame at a time, in memory that does not grow with the clip. Changes no value."""
    training: VaeTraining = VaeTraining.model_construct()
    """How `train --stage vae` trains it."""


class CascadeVae(Section):
    """Stages A and B of StableCascade: a semantic latent space with a diffusion decoder (arXiv 2306.00637)."""

    kind: Literal["cascade"]
    compression: Compression = Compression.model_construct(time=1, space=32)
    """The published 42.67 is 1024 pixels to 24 latents."""
    channels: Small = 16
    """Latent channels of stage C."""
    weights: str | None = None
    """Folder with the stages' safetensors."""


TrainableVae = ImageKlVae | Causal3dVae
LearnedVae = TrainableVae | CascadeVae
StreamingVae = Causal3dVae
Vae = Annotated[IdentityVae | LearnedVae, Field(discriminator="kind")]
