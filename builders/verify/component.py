"""Runs the real module of a component under a trace: what `sora_spec.graph` predicts, as PyTorch does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from sora_spec.builders.backbones.interface import Denoiser
from sora_spec.builders.codec import build_codec
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.losses import Loss, build_loss
from sora_spec.builders.vae.losses import VaeLoss
from sora_spec.builders.verify.trace import MemoryTrace, forced_attention
from sora_spec.graph import Component, Setting
from sora_spec.schema.condition import ClassCondition, NoCondition, TextCondition
from sora_spec.schema.spec import Spec
from sora_spec.schema.training import BlockRecompute
from sora_spec.schema.vae import Causal3dVae, ImageKlVae
from sora_spec.shapes import derive_shapes


@dataclass(frozen=True)
class Traced:
    """What a run of the real module did."""

    trace: MemoryTrace
    parameters: int
    resident_bytes: int
    forward_live_bytes: int
    """Alive after the forward pass, residents not counted."""
    forward_events: int
    """Kernels that allocated before the backward pass began."""
    forward_peak_bytes: int

    @property
    def forward_flops(self) -> int:
        """FLOPs of the forward pass."""
        return sum(event.flops for event in self.trace.events[: self.forward_events])

    @property
    def backward_flops(self) -> int:
        """FLOPs of the backward pass."""
        return sum(event.flops for event in self.trace.events[self.forward_events :])


def trace_component(spec: Spec, component: Component, setting: Setting) -> Traced:
    """Trace one component on `meta`, or on the CPU where the setting names its attention kernel."""
    device = torch.device("cpu" if setting.attention == "cpu" else "meta")
    if component == "vae_step":
        return _trace_codec_step(spec, setting, device)
    if component in ("vae_encode", "vae_decode"):
        return _trace_codec(spec, component, setting, device)
    return _trace_denoiser(spec, component, setting, device)


def _dtype(setting: Setting) -> torch.dtype:
    return torch.bfloat16 if setting.precision == "bf16" else torch.float32


def _run(
    setting: Setting, module: nn.Module, others: Iterable[Tensor], forward: Callable[[], Tensor], gradients: bool
) -> Traced:
    trace = MemoryTrace(setting.rounding)
    resident = trace.hold([*module.parameters(), *module.buffers(), *others])
    with forced_attention(setting.attention), torch.set_grad_enabled(gradients), trace:
        result = forward()
        live, events, peak = trace.live_bytes, len(trace.events), trace.peak_bytes
        if gradients:
            torch.autograd.backward(result)
    parameters = sum(p.numel() for p in module.parameters())
    return Traced(trace, parameters, resident, live - resident, events, peak)


def _trace_codec(spec: Spec, component: Component, setting: Setting, device: torch.device) -> Traced:
    with device:
        codec = build_codec(spec)
    codec = codec.to(_dtype(setting))
    shapes = derive_shapes(spec)
    encodes = component == "vae_encode"
    shape = shapes.video if encodes else shapes.latent
    x = torch.zeros(setting.batch, *shape, device=device, dtype=_dtype(setting))
    return _run(setting, codec, [x], lambda: codec.encode(x) if encodes else codec.decode(x), gradients=False)


def _trace_codec_step(spec: Spec, setting: Setting, device: torch.device) -> Traced:
    vae, shapes, batch = spec.vae, derive_shapes(spec), setting.batch
    assert isinstance(vae, ImageKlVae | Causal3dVae)
    with device:
        codec = build_codec(spec)
        video = torch.zeros(batch, *shapes.video, dtype=_dtype(setting))
        noise = torch.zeros(batch, *shapes.latent, dtype=_dtype(setting))
    codec, loss = codec.to(_dtype(setting)), VaeLoss(vae.training)
    return _run(setting, codec, [video, noise], lambda: loss(codec, video, noise)["loss"], gradients=True)


def _trace_denoiser(spec: Spec, component: Component, setting: Setting, device: torch.device) -> Traced:
    with device:
        network = build_denoiser(spec)
    network = network.to(_dtype(setting))
    batch, latent = setting.batch, derive_shapes(spec).latent
    x, time = torch.zeros(batch, *latent, device=device), torch.zeros(batch, device=device)
    condition = _condition(spec, batch, device)
    inputs = [x, time] if condition is None else [x, time, condition]
    if component == "denoiser":
        return _run(setting, network, inputs, lambda: network(x, time, condition), gradients=False)
    _recompute(spec, network, setting)
    noise, loss = torch.zeros_like(x), build_loss(spec)

    def forward() -> Tensor:
        return loss(lambda noisy, at: network(noisy, at, condition), x, time, noise).mean()

    return _run(setting, network, [*inputs, noise, *_tables(loss, time)], forward, gradients=True)


def _condition(spec: Spec, batch: int, device: torch.device) -> Tensor | None:
    match spec.condition:
        case NoCondition():
            return None
        case ClassCondition():
            return torch.zeros(batch, device=device, dtype=torch.int64)
        case TextCondition():
            tokens = () if spec.condition.pooled else (spec.condition.tokens,)
            return torch.zeros(batch, *tokens, spec.condition.width, device=device)


def _tables(loss: Loss, time: Tensor) -> list[Tensor]:
    """The loss's tables, which it puts on a device when it first sees it."""
    return loss.tables(time.device)


def _recompute(spec: Spec, network: Denoiser, setting: Setting) -> None:
    """What `train` does to the blocks, and beyond it selective recomputation."""
    every, section = 1, spec.train.recompute
    if setting.recompute == "spec":
        every = section.every if isinstance(section, BlockRecompute) else 0
    wrap = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    if setting.recompute == "selective":
        wrap = partial(wrap, context_fn=partial(create_selective_checkpoint_contexts, _policy(setting)))
    if setting.recompute == "none" or not every:
        return
    for index, block in enumerate(network.blocks):
        if index % every == 0:
            block.forward = partial(wrap, block.forward)


def _policy(setting: Setting) -> Callable[..., CheckpointPolicy]:
    def decide(context: object, op: torch._ops.OpOverload, *args: object, **kwargs: object) -> CheckpointPolicy:
        name = op.name().removeprefix("aten::").split(".")[0]
        return CheckpointPolicy.MUST_SAVE if name in setting.selected else CheckpointPolicy.PREFER_RECOMPUTE

    return decide
