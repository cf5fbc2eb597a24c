"""From a spec to the graph of one of its components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, Literal, get_args

from sora_spec.errors import UserError
from sora_spec.graph.assembly import Inputs, assembled
from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops.reduction import mean
from sora_spec.graph.eager.ops.views import cat
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.ir import Graph, Repeat
from sora_spec.graph.lower.families import block_axes, is_lowered
from sora_spec.graph.lower.losses import build_loss
from sora_spec.graph.lower.lpips import Lpips
from sora_spec.graph.lower.transformer import TransformerDenoiser
from sora_spec.graph.lower.vae import build_vae, trained_vae
from sora_spec.graph.lower.vae_loss import vae_loss
from sora_spec.graph.lower.weights import Policy, Weights
from sora_spec.graph.setting import Precision, Recompute, Setting, compute_dtype, new_tape
from sora_spec.language.abilities import vae_to_train
from sora_spec.language.facts import period, sampler_facts
from sora_spec.language.shapes import derive_shapes
from sora_spec.recipe.training import recompute_every, recomputed_blocks

if TYPE_CHECKING:
    from sora_spec.graph.traced.component import TracedDenoiser
    from sora_spec.language.schema.spec import Spec

__all__ = ["COMPONENTS", "Component", "Precision", "Recompute", "Setting", "graph_from_spec"]

Component = Literal[
    "text_encode",
    "denoiser",
    "denoiser_step",
    "optimizer_step",
    "ema_step",
    "sampler_step",
    "vae_encode",
    "vae_decode",
    "vae_step",
]
COMPONENTS: tuple[Component, ...] = get_args(Component)


def graph_from_spec(spec: Spec, component: Component, setting: Setting | None = None) -> Graph:
    """The graph of one component: lowered, or recorded from its module where it has no lowering.

    Raises UserError for a variant that can be described but not built, or that cannot be recorded here.
    """
    setting = setting or Setting()
    lowered = is_lowered(spec, component)
    if component == "vae_step":
        return _vae_step_graph(spec, setting) if lowered else _traced(spec, component, setting)
    if component in ("vae_encode", "vae_decode"):
        return _vae_graph(spec, component, setting) if lowered else _traced(spec, component, setting)
    if component == "text_encode":
        return _text_graph(spec, setting)
    if component == "sampler_step":
        return _sampler_graph(spec, setting)
    if component in ("optimizer_step", "ema_step"):
        return _update_graph(spec, component, setting)
    return _denoiser_graph(spec, component, setting) if lowered else _traced(spec, component, setting)


def _traced(spec: Spec, component: Component, setting: Setting) -> Graph:
    # Imported here: what has a lowering needs none of it, and short commands feel every module.
    from sora_spec.graph.traced.component import traced_graph

    if component.startswith("vae"):
        return traced_graph(spec, component, setting)
    blocks = _blocks(spec, setting)
    return traced_graph(spec, component, setting, blocks.count, blocks.repeat)


def _network(weights: Weights, spec: Spec, setting: Setting, blocks: _Blocks) -> TransformerDenoiser | TracedDenoiser:
    """The network of passes without gradients, and of what is kept for its weights."""
    with weights.tape.enter("backbone", ("backbone",)):
        if is_lowered(spec, "denoiser"):
            return TransformerDenoiser(weights, spec, block_axes(spec.temporal, blocks.count))
        from sora_spec.graph.traced.component import TracedDenoiser

        return TracedDenoiser(weights, spec, setting, blocks.count)


@dataclass(frozen=True)
class _Blocks:
    """The blocks that are run for all that the spec has: a network of fewer, with the same pattern."""

    count: int
    recomputed: frozenset[int]
    repeat: Repeat | None


def _blocks(spec: Spec, setting: Setting) -> _Blocks:
    """First, middle and last blocks of the pattern; the middle stands for all in between."""
    if spec.backbone.kind != "transformer":
        return _Blocks(0, frozenset(), None)
    depth, every = spec.backbone.depth, _recompute_every(spec, setting)
    alike = lcm(period(spec.temporal), max(every, 1))
    times = (depth - 2 * alike) // alike
    repeat = None if setting.full or times < 2 else Repeat(alike, 2 * alike, times)
    count = depth if repeat is None else depth - alike * (times - 1)
    recomputed = frozenset(recomputed_blocks(every, count))
    return _Blocks(count, recomputed, repeat)


def _recompute_every(spec: Spec, setting: Setting) -> int:
    """Every how manyth block is recomputed; 0 for none."""
    match setting.recompute:
        case "none":
            return 0
        case "blocks" | "selective":
            return 1
        case "spec":
            return recompute_every(spec.train.recompute)


def _network_policy(setting: Setting, trains: bool) -> Policy:
    return Policy(
        compute_dtype(setting),
        setting.attention,
        setting.fused_rms_norm,
        trains,
        setting.sequence if trains else 1,
        setting.temporal_attention,
    )


def _denoiser_graph(spec: Spec, component: Component, setting: Setting) -> Graph:
    step = component == "denoiser_step"
    tape, blocks = new_tape(setting), _blocks(spec, setting)
    policy = _network_policy(setting, step)
    weights, inputs = Weights(tape, policy), Inputs(tape)
    with tape.enter("backbone", ("backbone",)):
        network = TransformerDenoiser(weights, spec, block_axes(spec.temporal, blocks.count))
    if step:
        network.recomputed = blocks.recomputed
        network.selected = setting.selected if setting.recompute == "selective" else ()
    batch, latent = setting.batch, derive_shapes(spec).latent
    x, time = inputs("latents", (batch, *latent)), inputs("time", (batch,))
    condition, mask = _condition(spec, inputs, batch), _mask(spec, inputs, batch)

    def denoise(noisy: Tensor, at: Tensor) -> Tensor:
        given = [None if name is None else inputs[name] for name in (condition, mask)]
        with tape.enter("backbone", outer=0):
            return network(noisy, at, *given)

    if not step:
        tape.grad_enabled = False
        return assembled(spec, component, weights, inputs, lambda: denoise(inputs[x], inputs[time]), blocks.repeat)
    with tape.enter("objective", ("objective",)):
        loss = build_loss(weights, spec.objective)
    noise = inputs("noise", (batch, *latent))

    def forward() -> Tensor:
        with tape.enter("objective"):
            return mean(loss(denoise, inputs[x], inputs[time], inputs[noise]))

    return assembled(spec, component, weights, inputs, forward, blocks.repeat, setting)


def _condition(spec: Spec, inputs: Inputs, batch: int, prefix: str = "") -> str | None:
    condition = spec.condition
    if condition.kind == "class":
        return inputs(f"{prefix}labels", (batch,), DType.INT64)
    if condition.kind == "none":
        return None
    tokens = () if condition.pooled else (condition.tokens,)
    return inputs(f"{prefix}context", (batch, *tokens, condition.width))


def _mask(spec: Spec, inputs: Inputs, batch: int) -> str | None:
    """Which tokens of a prompt are padding, where the spec says that they are passed over."""
    condition = spec.condition
    if condition.kind != "text" or condition.pooled or not condition.masked:
        return None
    return inputs("mask", (batch, condition.tokens), DType.INT64)


def _sampler_graph(spec: Spec, setting: Setting) -> Graph:
    """A step from the middle of sampling `setting.batch` clips; guidance doubles the network's batch."""
    # Imported here: training needs none of it, and short commands feel every module.
    from sora_spec.graph.lower.sampler import SamplerStep, declare_held
    from sora_spec.recipe.sampling import is_guided

    shapes, blocks = derive_shapes(spec), _blocks(spec, setting)
    channels, *places = shapes.latent

    def begin() -> tuple[Weights, Inputs, Callable[[], SamplerStep]]:
        tape = new_tape(setting)
        tape.grad_enabled = False
        weights, inputs = Weights(tape, _network_policy(setting, trains=False)), Inputs(tape)
        network = _network(weights, spec, setting, blocks)
        inputs("initial", (setting.batch, channels, *places), yaml=("sampler",))
        condition = _condition(spec, inputs, setting.batch)
        null = _condition(spec, inputs, setting.batch, "null ") if is_guided(spec) else None
        mask = _mask(spec, inputs, setting.batch)

        def denoise(noisy: Tensor, at: Tensor, given: Tensor | None) -> Tensor:
            shown = None if mask is None else inputs[mask]
            if shown is not None and null is not None:
                shown = cat([shown, shown], 0)  # Open-Sora's null prompt is masked as the prompt it stands for
            with tape.enter("backbone", outer=0):
                return network(noisy, at, given, shown)

        def step() -> SamplerStep:
            given = [None if name is None else inputs[name] for name in (condition, null)]
            return SamplerStep(tape, spec, denoise, given[0], given[1])

        return weights, inputs, step

    slope = None
    if sampler_facts(spec.sampler).adaptive:  # its first stage reads a slope of the step before, which lies as this one
        _, scratch, probe = begin()
        slope = probe().field(scratch["initial"])
    weights, inputs, new_step = begin()
    held: list[str] = []

    def leaf_of(name: str, channels: int) -> None:
        held.append(inputs(name, (setting.batch, channels, *places), yaml=("sampler",)))

    declare_held(spec, leaf_of, channels, shapes.out_channels)

    def forward() -> Tensor:
        step = new_step()
        step.slope = None if slope is None else (slope.shape, slope.strides)
        with weights.tape.enter("sampler", ("sampler",)):
            return step(inputs.take(held))

    return assembled(spec, "sampler_step", weights, inputs, forward, blocks.repeat)


def _update_graph(spec: Spec, component: Component, setting: Setting) -> Graph:
    """AdamW or the moving average, over the float32 weights of the denoiser."""
    # Imported here: planning needs none of it, and short commands feel every module.
    from sora_spec.graph.lower.optimizer import AdamWStep, AverageStep

    tape, blocks = new_tape(setting), _blocks(spec, setting)
    tape.grad_enabled = False
    weights = Weights(tape, Policy(DType.F32, setting.attention))
    _network(weights, spec, replace(setting, batch=1, precision="fp32"), blocks)
    step = AdamWStep(weights, setting.optimizer) if component == "optimizer_step" else AverageStep(weights)

    def forward() -> Tensor:
        step()
        return weights.parameters[0].detach()

    return assembled(spec, component, weights, Inputs(tape), forward, blocks.repeat)


def _text_graph(spec: Spec, setting: Setting) -> Graph:
    """Prompts that fill their tokens, through the frozen encoder; blocks but the first and the last are alike."""
    # Imported here: most specs have no text encoder, and short commands feel every module.
    from sora_spec.graph.lower.text_encoder import build_text_encoder
    from sora_spec.language.text_encoders import check_tokens, known_config

    condition = spec.condition
    if condition.kind != "text":
        raise UserError(f"{spec.name}: condition.kind {condition.kind!r} has no text encoder")

    config = known_config(condition.encoder)
    check_tokens(config, condition.tokens)
    tape = new_tape(setting)
    tape.grad_enabled = False
    weights = Weights(tape, Policy(compute_dtype(setting), setting.attention, train=False))
    inputs, repeated = Inputs(tape), 0 if setting.full else max(0, config.depth - 2)
    repeat = Repeat(1, 2, repeated) if repeated > 1 else None
    with tape.enter("text_encoder", ("condition", "encoder")):
        encoder = build_text_encoder(weights, config, config.depth if repeat is None else 3)
    tokens = inputs("tokens", (setting.batch, condition.tokens), DType.INT64)

    def forward() -> Tensor:
        with tape.enter("text_encoder"):
            return encoder(inputs[tokens])

    return assembled(spec, "text_encode", weights, inputs, forward, repeat)


def _vae_graph(spec: Spec, component: Component, setting: Setting) -> Graph:
    tape = new_tape(setting)
    tape.grad_enabled = False
    weights = Weights(tape, Policy(compute_dtype(setting), setting.attention, train=False))
    inputs, shapes = Inputs(tape), derive_shapes(spec)
    with tape.enter("vae", ("vae",)):
        vae = build_vae(spec, weights, setting.full)
    encodes = component == "vae_encode"
    shape = shapes.video if encodes else shapes.latent
    x = inputs("video" if encodes else "latents", (setting.batch, *shape), compute_dtype(setting))

    def forward() -> Tensor:
        with tape.enter("vae"):
            return vae.encode(inputs[x]) if encodes else vae.decode(inputs[x])

    return assembled(spec, component, weights, inputs, forward, None)


def _vae_step_graph(spec: Spec, setting: Setting) -> Graph:
    section = vae_to_train(spec)
    tape, shapes = new_tape(setting), derive_shapes(spec)
    weights, inputs = Weights(tape, Policy(compute_dtype(setting), setting.attention)), Inputs(tape)
    with tape.enter("vae", ("vae",)):
        vae = trained_vae(section, weights)
    perceptual = None
    if section.training.perceptual.kind == "lpips":
        with tape.enter("perceptual", ("vae", "training", "perceptual")):
            perceptual = Lpips(weights)
    video = inputs("video", (setting.batch, *shapes.video), compute_dtype(setting))
    noise = inputs("noise", (setting.batch, *shapes.latent), compute_dtype(setting))

    def forward() -> Tensor:
        with tape.enter("vae"):
            return vae_loss(vae, inputs[video], inputs[noise], section.training.reconstruction, perceptual)

    return assembled(spec, "vae_step", weights, inputs, forward, None, setting)
