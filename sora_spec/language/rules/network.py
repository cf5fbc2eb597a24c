"""The network in itself and against its condition: heads, positions, conditioning, text width, size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sora_spec.errors import UserError
from sora_spec.language.facts import temporal_facts
from sora_spec.language.rules.problem import At, Problem, divisors, multiples_around

if TYPE_CHECKING:
    from sora_spec.language.schema.backbone import Rope, Transformer
    from sora_spec.language.schema.spec import Spec

MAX_PARAMETERS = 10**12
"""Parameters of a backbone. The largest published video transformers have about 3·10¹⁰."""


def heads_divide_width(spec: Spec) -> Iterator[Problem]:
    """E304."""
    backbone = spec.backbone
    if backbone.width % backbone.heads == 0:
        return
    fits = divisors(backbone.width)
    near = [max(n for n in fits if n < backbone.heads), *(n for n in fits if n > backbone.heads)][:2]
    yield Problem(
        "E304",
        f"{backbone.heads} heads do not divide the width {backbone.width}",
        At("backbone.heads", f"{backbone.width} / {backbone.heads} = {backbone.width / backbone.heads:.2f}"),
        (At("backbone.width", f"width {backbone.width}"),),
        f"Use {' or '.join(map(str, near))} heads, or a width of {multiples_around(backbone.width, backbone.heads)}.",
    )


def rope_fits_heads(spec: Spec) -> Iterator[Problem]:
    """E305. Rotary positions turn pairs of channels, so every share of a head is even."""
    backbone = spec.backbone
    if backbone.kind != "transformer" or backbone.position.kind != "rope" or backbone.width % backbone.heads:
        return
    head = backbone.width // backbone.heads
    if backbone.position.axes is not None:
        yield from _axes(backbone.position, backbone.position.axes, head)
    elif head % 2 or head < 6:
        yield Problem(
            "E305",
            f"rotary positions over three axes need heads of an even width of at least 6, but a head has {head}",
            At("backbone.position", f"head width {head}"),
            _head_parts(backbone),
            f"Use fewer heads: {_fewer_heads(backbone)}.",
        )


def _axes(position: Rope, axes: tuple[int, int, int], head: int) -> Iterator[Problem]:
    odd = [axis for axis in axes if axis % 2]
    if odd:
        message = f"rotary positions turn pairs of channels, but an axis has {odd[0]}"
        yield Problem("E305", message, At("backbone.position.axes", "every axis is even"), (), _axes_help(head))
    elif sum(axes) != head:
        message = f"the rotary axes add up to {sum(axes)} channels, but a head has {head}"
        label = f"{' + '.join(map(str, axes))} = {sum(axes)}"
        also = (At("backbone.heads", f"head width {head}"),)
        yield Problem("E305", message, At("backbone.position.axes", label), also, _axes_help(head))


def _axes_help(head: int) -> str:
    side = head * 3 // 8 // 2 * 2
    usual = f"`axes: [{head - 2 * side}, {side}, {side}]`"
    return f"Use {usual}, or leave `axes` out for the same." if head % 2 == 0 and side else "Use an even head width."


def _head_parts(backbone: Transformer) -> tuple[At, ...]:
    return (At("backbone.width", f"width {backbone.width}"), At("backbone.heads", f"{backbone.heads} heads"))


def _fewer_heads(backbone: Transformer) -> str:
    fits = [n for n in divisors(backbone.width) if (head := backbone.width // n) >= 6 and head % 2 == 0]
    below = [n for n in fits if n < backbone.heads] or fits
    return f"`heads: {below[-1]}`" if below else "no number of heads fits this width; make it larger and even"


def sincos_fits_width(spec: Spec) -> Iterator[Problem]:
    """E306. Sine and cosine, for rows and for columns: four equal parts of the width."""
    backbone = spec.backbone
    if backbone.kind == "transformer" and backbone.position.kind == "sincos" and backbone.width % 4:
        yield Problem(
            "E306",
            f"sine-cosine positions need a width divisible by 4, but it is {backbone.width}",
            At("backbone.width", f"{backbone.width} = {backbone.width // 4}·4 + {backbone.width % 4}"),
            help=f"Use a width of {multiples_around(backbone.width, 4)}.",
        )


def condition_reaches_blocks(spec: Spec) -> Iterator[Problem]:
    """E312."""
    if spec.backbone.kind != "transformer":
        return
    kind, condition = spec.backbone.conditioning.kind, spec.condition
    if condition.kind == "text" and not condition.pooled:
        if kind != "cross_attention":
            tokens = condition.tokens
            yield Problem(
                "E312",
                f"`{kind}` adds one vector per clip, but the text brings {tokens} tokens, which nothing would read",
                At("condition", f"{tokens} tokens"),
                (At("backbone.conditioning", "takes one vector"),),
                "Use `backbone.conditioning: {kind: cross_attention}`, whose blocks attend to the tokens, or set "
                "`condition.pooled: true` for one vector of them all.",
            )
    elif kind == "cross_attention":
        pooled = condition.kind == "text"
        what = "one pooled vector" if pooled else "no tokens"
        other = "Use `backbone.conditioning: {kind: adaln_zero}`, or a `condition` of kind `text`."
        help = "Set `condition.pooled: false`, or use `conditioning: {kind: adaln_zero}`." if pooled else other
        yield Problem(
            "E312",
            f"cross-attention attends to text tokens, but `condition: {{kind: {condition.kind}}}` brings {what}",
            At("backbone.conditioning.kind", "needs text tokens"),
            (At("condition", what),),
            help,
        )


def text_switches_switch(spec: Spec) -> Iterator[Problem]:
    """W302."""
    condition = spec.condition
    if condition.kind != "text" or not condition.pooled:
        return
    for name, idle in (("masked", condition.masked), ("no_prompt", condition.no_prompt == "table")):
        if idle:
            yield Problem(
                "W302",
                f"`condition.{name}` changes nothing: a pooled prompt has no tokens",
                At(f"condition.{name}", "about tokens"),
                (At("condition.pooled", "one vector"),),
                "Remove it.",
                severity="warning",
            )


def frame_positions_are_read(spec: Spec) -> Iterator[Problem]:
    """W302."""
    backbone, temporal = spec.backbone, spec.temporal
    if backbone.kind != "transformer" or temporal.kind != "factorized":
        return
    if temporal.frame_positions != "tokens" and backbone.position.kind != "sincos":
        yield Problem(
            "W302",
            f"`frame_positions: {temporal.frame_positions}` changes nothing: there is no table over frames",
            At("temporal.frame_positions", "about the sine-cosine table"),
            (At("backbone.position.kind", f"{backbone.position.kind}"),),
            "Remove it, or use `position: {kind: sincos}`.",
            severity="warning",
        )


def norms_are_there(spec: Spec) -> Iterator[Problem]:
    """W302."""
    backbone = spec.backbone
    if backbone.kind != "transformer" or backbone.qk_norm_over == "head" or backbone.qk_norm:
        return
    text = backbone.conditioning
    if text.kind != "cross_attention" or not text.qk_norm:
        yield Problem(
            "W302",
            f"`backbone.qk_norm_over: {backbone.qk_norm_over}` changes nothing: no queries and keys are normalised",
            At("backbone.qk_norm_over", "about the norms of queries and keys"),
            (At("backbone.qk_norm", "no norms"),),
            "Remove it, or set `backbone.qk_norm: true`.",
            severity="warning",
        )


def time_is_an_interpolants(spec: Spec) -> Iterator[Problem]:
    """E331."""
    backbone = spec.backbone
    if backbone.kind == "transformer" and backbone.time_input != "time" and spec.objective.kind != "interpolant":
        yield Problem(
            "E331",
            f"`time_input: {backbone.time_input}` turns an interpolant's time in [0, 1] into a noise level, but the "
            f"objective is `{spec.objective.kind}`",
            At("backbone.time_input", "1000·(1 − t)"),
            (At("objective.kind", "counts steps"),),
            "Remove it, or use `objective: {kind: interpolant}`.",
        )


def text_width_is_the_encoders(spec: Spec) -> Iterator[Problem]:
    """E326. Of encoders that are known: released ones, and folders with a `config.json`."""
    condition = spec.condition
    if condition.kind != "text":
        return
    from sora_spec.language.text_encoders import find_config  # most specs have no text encoder

    try:
        config = find_config(condition.encoder)
    except UserError:
        return  # whoever reads the encoder says what is wrong with its folder
    if config is None:
        return
    name = condition.encoder.rstrip("/").rsplit("/", 1)[-1]
    width = config.pooled_width if condition.pooled else config.width
    if width != condition.width:
        yield Problem(
            "E326",
            f"the features of {name} have width {width}, but the spec says {condition.width}",
            At("condition.width", f"width {condition.width}"),
            (At("condition.encoder", f"width {width}"),),
            f"Set `condition.width: {width}`.",
        )


def parameters_are_bounded(spec: Spec) -> Iterator[Problem]:
    """E327, the part about the network. 18·D² per block: 4 attention, 8 MLP at ratio 4, 6 modulation."""
    backbone = spec.backbone
    if backbone.kind != "transformer":
        return
    if backbone.width * backbone.mlp_ratio < 1:
        yield Problem(
            "E327",
            f"the MLP of {backbone.width} × {backbone.mlp_ratio:g} has no channel",
            At("backbone.mlp_ratio", f"{backbone.mlp_ratio:g}"),
            (At("backbone.width", f"width {backbone.width}"),),
            "Use `mlp_ratio: 4.0`, as every published system does.",
        )
    parameters = int(backbone.depth * backbone.width**2 * (10 + 2 * backbone.mlp_ratio))
    if parameters > MAX_PARAMETERS:
        yield Problem(
            "E327",
            f"the network has about {parameters:.1e} parameters, more than the {MAX_PARAMETERS:.0e} that can be built",
            At("backbone.width", f"depth {backbone.depth} × width {backbone.width}²"),
            help="DiT-XL has depth 28 and width 1152.",
        )


def temporal_has_time(spec: Spec) -> Iterator[Problem]:
    """W301."""
    if temporal_facts(spec.temporal).moves and spec.clip.frames == 1:
        yield Problem(
            "W301",
            f"`temporal: {{kind: {spec.temporal.kind}}}` attends over time, but a clip has one frame",
            At("temporal.kind", "nothing to attend to"),
            (At("clip.frames", "one frame"),),
            "Use `temporal: {kind: none}` for an image model, or more frames.",
            severity="warning",
        )


RULES = (
    heads_divide_width,
    rope_fits_heads,
    sincos_fits_width,
    condition_reaches_blocks,
    text_width_is_the_encoders,
    text_switches_switch,
    frame_positions_are_read,
    norms_are_there,
    time_is_an_interpolants,
    parameters_are_bounded,
    temporal_has_time,
)
