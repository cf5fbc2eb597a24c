"""The real module of a component, and what it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from sora_spec.builders.backbones.interface import Denoiser
from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.losses import build_loss
from sora_spec.builders.trace.kernels import forced_attention, fused_rms_norm
from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.builders.vae.losses import VaeLoss
from sora_spec.builders.vae.lpips import Lpips
from sora_spec.errors import UserError
from sora_spec.graph import Component, Setting
from sora_spec.language.facts import is_trainable
from sora_spec.language.schema.condition import ClassCondition, NoCondition, TextCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.training import BlockRecompute
from sora_spec.language.shapes import derive_shapes


@dataclass
class Prepared:
    """A component ready to run."""

    module: nn.Module
    inputs: dict[str, Tensor]
    """What a caller hands in. `forward` looks here, so that clearing it lets go of them."""
    tables: list[Tensor]
    """Constants beside the module's."""
    forward: Callable[[], Tensor]
    trains: bool
    beside: dict[str, nn.Module] = field(default_factory=dict)
    """Frozen modules that are no part of it, by name."""

    def run(self, setting: Setting, forward_done: Callable[[], None] = lambda: None, forced: bool = True) -> None:
        """Make the pass, and the backward pass where the component trains; `forced`: with the setting's kernels."""
        names = (setting.attention, setting.temporal_attention) if forced else ("", None)
        with forced_attention(*names), fused_rms_norm(setting.fused_rms_norm), torch.set_grad_enabled(self.trains):
            result = self.forward()
            if setting.owned_inputs and self.trains:
                self.inputs.clear()
            forward_done()
            if self.trains:
                torch.autograd.backward(result)


def prepare_component(
    spec: Spec, component: Component, setting: Setting, device: torch.device | None = None
) -> Prepared:
    """Build the real module of a component and what it is fed, on the CPU for its kernels and else on `meta`.

    Raises UserError for a component that has no module here.
    """
    device = device or torch.device("cpu" if setting.attention == "cpu" else "meta")
    match component:
        case "denoiser" | "denoiser_step":
            return _denoiser(spec, component == "denoiser_step", setting, device)
        case "vae_encode" | "vae_decode":
            return _vae(spec, component == "vae_encode", setting, device)
        case "vae_step":
            return _vae_step(spec, setting, device)
        case "text_encode":
            raise UserError(f"{spec.name}: the text encoder is not among the modules of this package")
        case "optimizer_step" | "ema_step" | "sampler_step":
            raise UserError(f"{spec.name}: {component} is no pass of one module; tests/graph verify it")


def _dtype(setting: Setting) -> torch.dtype:
    return torch.bfloat16 if setting.precision == "bf16" else torch.float32


def _vae(spec: Spec, encodes: bool, setting: Setting, device: torch.device) -> Prepared:
    with device:
        vae = build_vae(spec)
    vae = vae.to(_dtype(setting))
    shapes = derive_shapes(spec)
    shape = shapes.video if encodes else shapes.latent
    inputs = {"x": torch.zeros(setting.batch, *shape, device=device, dtype=_dtype(setting))}
    run = vae.encode if encodes else vae.decode
    return Prepared(vae, inputs, [], lambda: run(inputs["x"]), trains=False)


def _vae_step(spec: Spec, setting: Setting, device: torch.device) -> Prepared:
    section, shapes, batch = spec.vae, derive_shapes(spec), setting.batch
    assert is_trainable(section)
    with device:
        vae = build_vae(spec)
        video = torch.zeros(batch, *shapes.video, dtype=_dtype(setting))
        noise = torch.zeros(batch, *shapes.latent, dtype=_dtype(setting))
        perceptual = Lpips()  # its weights are not read: values have no size
    vae, loss = vae.to(_dtype(setting)), VaeLoss(section.training, perceptual)
    inputs = {"video": video, "noise": noise}
    beside = dict(loss.named_children())

    def forward() -> Tensor:
        return loss(vae, inputs["video"], inputs["noise"])["loss"]

    return Prepared(vae, inputs, [], forward, trains=True, beside=beside)


def _denoiser(spec: Spec, trains: bool, setting: Setting, device: torch.device) -> Prepared:
    with device:
        network = build_denoiser(spec)
    network = network.to(_dtype(setting))
    batch, latent = setting.batch, derive_shapes(spec).latent
    inputs = {"latents": torch.zeros(batch, *latent, device=device), "time": torch.zeros(batch, device=device)}
    condition = _condition(spec, batch, device)
    if condition is not None:
        inputs["condition"] = condition
    if isinstance(spec.condition, TextCondition) and spec.condition.masked and not spec.condition.pooled:
        inputs["mask"] = torch.ones(batch, spec.condition.tokens, device=device, dtype=torch.int64)

    def denoise(noisy: Tensor, at: Tensor) -> Tensor:
        return network(noisy, at, inputs.get("condition"), inputs.get("mask"))

    if not trains:
        return Prepared(network, inputs, [], lambda: denoise(inputs["latents"], inputs["time"]), trains=False)
    _recompute(spec, network, setting)
    inputs["noise"], loss = torch.zeros_like(inputs["latents"]), build_loss(spec)

    def forward() -> Tensor:
        return loss(denoise, inputs["latents"], inputs["time"], inputs["noise"]).mean()

    return Prepared(network, inputs, loss.tables(device), forward, trains=True)


def _condition(spec: Spec, batch: int, device: torch.device) -> Tensor | None:
    match spec.condition:
        case NoCondition():
            return None
        case ClassCondition():
            return torch.zeros(batch, device=device, dtype=torch.int64)
        case TextCondition():
            tokens = () if spec.condition.pooled else (spec.condition.tokens,)
            return torch.zeros(batch, *tokens, spec.condition.width, device=device)


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
