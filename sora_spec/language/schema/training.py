"""`train`, `parallel` and `hardware`: how the model is trained and on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sora_spec.language.schema.section import NonNegative, Positive, Probability, Section, Size, Small, Steps

Precision = Literal["fp32", "bf16"]


class AdamW(Section):
    """AdamW (arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive = 1e-4
    """Learning rate after the warm-up."""
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = (0.9, 0.999)
    """Decay of the two moments."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""


class NoRecompute(Section):
    """Keep every activation for the backward pass."""

    kind: Literal["none"] = "none"


class BlockRecompute(Section):
    """Recompute whole blocks in the backward pass (activation checkpointing)."""

    kind: Literal["blocks"]
    every: Small = 1
    """Recompute one block in this many."""


Recompute = Annotated[NoRecompute | BlockRecompute, Field(discriminator="kind")]


class Train(Section):
    """Training of the denoiser."""

    data: str | None = None
    """Folder of videos (class = the folder directly in it that a file lies below), or a list of path and label: CSV,
    TSV, JSON or text."""
    batch: Size = 8
    """Clips per optimiser step over all ranks: micro_batch × accumulation × shard × replicate."""
    micro_batch: Size | None = None
    """Clips per forward pass on one rank. Left out: what batch, ranks and accumulation leave."""
    accumulation: Small = 1
    """Forward passes per optimiser step."""
    precision: Precision = "fp32"
    """Precision of forward and backward. `bf16` keeps fp32 master weights and reduces gradients in fp32."""
    tf32: bool = False
    """Let a GPU multiply fp32 matrices in TF32, as DiT, SiT and Latte do: about 3 digits, several times as fast.
    `generate` from a run folder and both training stages follow it."""
    optimizer: AdamW = AdamW.model_construct()
    """Optimiser."""
    warmup: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Steps over which the learning rate rises linearly from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up: stay, or fall to zero along a half cosine."""
    clip_grad: Positive | None = None
    """Largest gradient norm; `null` for no clipping."""
    clip_grad_from: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """First step, counted from 0, whose gradients are clipped; before it their norm is only measured (Latte: 100,000).
    """
    recompute: Recompute = NoRecompute.model_construct()
    """Activation checkpointing."""
    ema: Probability = 0.9999
    """Decay of the moving average of the weights. 0 keeps no average."""
    ema_device: Literal["device", "cpu"] = "device"
    """Where the average is kept: `device`, beside the weights, or `cpu`, in host memory, copied there at every step."""
    ema_warmup: bool = False
    """Let the decay grow as (1 + step) / (10 + step) up to `ema`, so that short runs have a useful average."""
    steps: Steps = 400_000
    """Optimiser steps."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of initialisation, data order, noise and dropout."""
    flip: bool = False
    """Mirror clips left to right with probability one half."""
    crop: Literal["random", "center"] = "random"
    """Where a clip is cut out of frames scaled to just cover it. `center`: the middle, as DiT, SiT, Latte and Open-Sora
    train; stills are then scaled as ADM does, by halving and bicubic. The VAE's `vae.training.crop` stays random."""
    short: Literal["skip", "loop"] = "skip"
    """What happens to a video shorter than a clip: it is skipped by name, or starts anew when it ends."""
    stills: Literal["skip", "repeat"] = "skip"
    """What happens to a picture where clips have several frames: it is skipped by name, or shown for the whole clip.
    Clips of one frame take pictures anyway."""
    log_every: Steps = 10
    """Steps between lines of metrics."""
    checkpoint_every: Steps = 1000
    """Steps between checkpoints."""
    keep: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Checkpoints that are kept; older ones are deleted once a newer one is whole."""
    sample_every: Steps | None = None
    """Steps between sample grids; `null` for none."""
    prompts: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=8)] | None = None
    """Prompts of the sample grids of a model that is steered by text, at most 8. Left out: the first captions of the
    data."""
    workers: Annotated[int, Field(ge=0, le=256)] = 1
    """Background processes that decode video."""


class Parallel(Section):
    """How ranks share the work: ranks = shard × sequence × replicate."""

    shard: Small = 1
    """Ranks over which parameters, gradients and optimiser states are sharded (FSDP2)."""
    sequence: Small = 1
    """Ranks that share one clip's tokens (sequence parallelism). Must divide tokens and heads."""
    replicate: Small = 1
    """Groups of ranks that hold the same shards. With `shard: 1`, data parallelism: every rank holds everything."""
    reshard: bool = True
    """Free the gathered weights of a block after its forward pass and gather them again for the backward pass (ZeRO-3).
    `false` keeps them until its backward pass has ended (ZeRO-2): fewer messages, more memory."""
    offload: bool = False
    """Keep weights, gradients and optimiser states in host memory (FSDP2's CPU offload). Blocks are copied to the
    device one at a time, and the optimiser runs on the host."""

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return self.shard * self.sequence * self.replicate


class Hardware(Section):
    """The machine the plan is made for."""

    gpu: Annotated[str, Field(max_length=64)] = "a100-80gb"
    """Name of the GPU."""
    count: Small = 1
    """Number of GPUs."""
