"""All components of a job beside each other: what each has, does and needs."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.graph.component import COMPONENTS, Component, graph_from_spec
from sora_spec.graph.passes.count import count
from sora_spec.graph.passes.memory import memory
from sora_spec.graph.passes.recomputation import Recomputation, recomputation
from sora_spec.graph.setting import Setting
from sora_spec.graph.show.picture import Box, Picture
from sora_spec.graph.show.printing import LineOf, dotted, nbytes, quantity
from sora_spec.language.facts import is_learned, is_trainable

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


@dataclass(frozen=True)
class Summary:
    """One component."""

    component: Component
    parameters: int = 0
    forward_flops: int = 0
    backward_flops: int = 0
    saved_bytes: int = 0
    """What the forward pass keeps for the backward pass."""
    peak_bytes: int = 0
    """Most bytes alive at once, weights and inputs included."""
    missing: str = ""
    """Why there is no graph; then all figures are 0."""

    @property
    def values(self) -> dict[str, Any]:
        """As plain values, for JSON: what is not known is null."""
        known = not self.missing
        figures = ("parameters", "forward_flops", "backward_flops", "saved_bytes", "peak_bytes")
        return {
            "component": self.component,
            **{name: getattr(self, name) if known else None for name in figures},
            "missing": self.missing or None,
        }


def overview(spec: Spec, setting: Setting) -> list[Summary]:
    """Every component that the spec has, in the order of a job."""
    return [found for name in COMPONENTS if (found := summary(spec, name, setting)) is not None]


def summary(spec: Spec, component: Component, setting: Setting) -> Summary | None:
    """One component; None for one that the spec has not."""
    if not has(spec, component):
        return None
    try:
        graph = graph_from_spec(_cropped(spec) if component == "vae_step" else spec, component, setting)
    except UserError as error:
        return Summary(component, missing=error.message)
    counts, held = count(graph), memory(graph, itemise=False)
    backward = graph.forward_ops < len(graph.ops)
    return Summary(
        component=component,
        parameters=counts.parameters,
        forward_flops=counts.forward_flops,
        backward_flops=counts.backward_flops,
        saved_bytes=held.forward_live_bytes if backward else 0,
        peak_bytes=held.peak_bytes,
    )


def _cropped(spec: Spec) -> Spec:
    """The spec with the VAE's training crop as its clip."""
    vae, clip = spec.vae, spec.clip
    if not is_trainable(vae):
        return spec
    training = vae.training
    side = {"height": training.crop or clip.height, "width": training.crop or clip.width}
    return spec.model_copy(update={"clip": clip.model_copy(update={"frames": training.frames or clip.frames, **side})})


def has(spec: Spec, component: Component) -> bool:
    """Whether a spec has a component at all."""
    if component == "text_encode":
        return spec.condition.kind == "text"
    return not component.startswith("vae") or is_learned(spec.vae)


def recomputations(spec: Spec, setting: Setting) -> dict[str, Recomputation]:
    """What recomputing every block of the denoiser, or all of it but its dear ops, trades; {} without a graph."""
    try:
        plain, *others = [
            graph_from_spec(spec, "denoiser_step", replace(setting, recompute=way))
            for way in ("none", "blocks", "selective")
        ]
    except UserError:
        return {}
    return {way: recomputation(plain, other) for way, other in zip(("blocks", "selective"), others, strict=True)}


def recomputation_text(found: dict[str, Recomputation], width: int) -> str:
    """A line or two for each way."""
    lines: list[str] = []
    for way, trade in found.items():
        more = 100 * trade.added_flops / max(trade.flops[0], 1)
        again = f"{quantity(trade.added_flops)}FLOP (+{more:.0f} %)" if trade.added_flops else "no matrix product"
        lines += textwrap.wrap(
            f"recompute {way}: keeps {nbytes(trade.saved_bytes[1])} instead of {nbytes(trade.saved_bytes[0])}, "
            f"peak {nbytes(trade.peak_bytes[1])} instead of {nbytes(trade.peak_bytes[0])}, "
            f"computes {again} again",
            max(width, 40),
            subsequent_indent="  ",
        )
    return "\n".join(lines)


def recomputation_values(found: dict[str, Recomputation], line_of: LineOf) -> dict[str, Any]:
    """As plain values, for JSON."""
    return {
        way: {
            "removed_bytes": trade.removed_bytes,
            "added_flops": trade.added_flops,
            "saved_bytes": trade.saved_bytes[1],
            "peak_bytes": trade.peak_bytes[1],
            "parts": [
                {
                    "region": part.region,
                    "yaml": dotted(part.yaml),
                    "line": line_of(part.yaml),
                    "removed_bytes": part.removed_bytes,
                    "added_flops": part.added_flops,
                }
                for part in trade.trades
            ],
        }
        for way, trade in found.items()
    }


_TITLES = ("component", "parameters", "forward", "backward", "kept", "peak")
_WIDTHS = (14, 15, 12, 12, 10, 10)


def overview_text(found: list[Summary], width: int) -> str:
    """A table; in less than 76 columns each component takes two lines."""
    narrow = width < sum(_WIDTHS) + 2
    lines = (
        []
        if narrow
        else ["".join(f"{t:{'<' if t == 'component' else '>'}{w}}" for t, w in zip(_TITLES, _WIDTHS, strict=True))]
    )
    for part in found:
        cells = _cells(part)
        if part.missing:
            lines.append(f"{part.component:<14} {part.missing}"[: max(width, 40)])
        elif narrow:
            lines += [f"{part.component}: {cells[0]} parameters", f"  {', '.join(c for c in _named(cells) if c)}"]
        else:
            lines.append(
                f"{part.component:<14}" + "".join(f"{c:>{w}}" for c, w in zip(cells, _WIDTHS[1:], strict=True))
            )
    return "\n".join(lines)


def _cells(part: Summary) -> tuple[str, ...]:
    return (
        f"{part.parameters:,}",
        f"{quantity(part.forward_flops)}FLOP" if part.forward_flops else "",
        f"{quantity(part.backward_flops)}FLOP" if part.backward_flops else "",
        nbytes(part.saved_bytes) if part.saved_bytes else "",
        nbytes(part.peak_bytes),
    )


def _named(cells: tuple[str, ...]) -> list[str]:
    return [f"{name} {cell}" if cell else "" for name, cell in zip(_TITLES[2:], cells[1:], strict=True)]


_JOBS = {
    "training the VAE": ("vae_step",),
    "training the denoiser": ("text_encode", "vae_encode", "denoiser_step", "optimizer_step", "ema_step"),
    "generating": ("text_encode", "sampler_step", "vae_decode"),
}


def overview_picture(name: str, found: list[Summary]) -> Picture:
    """The jobs as groups of components in the order in which they run."""
    parts: dict[str, Summary] = {part.component: part for part in found}
    boxes: list[Box] = []
    arrows: list[tuple[str, str]] = []
    for number, (job, names) in enumerate(_JOBS.items()):
        there = [parts[name] for name in names if name in parts]
        if not there:
            continue
        children = tuple(_box(f"j{number}_{part.component}", part) for part in there)
        boxes.append(Box(f"j{number}", job, (), "group", (), children))
        arrows += [(a.id, b.id) for a, b in pairwise(children)]
    return Picture(f"{name}: components", tuple(boxes), tuple(arrows))


def _box(box_id: str, part: Summary) -> Box:
    if part.missing:
        return Box(box_id, part.component, (part.missing,), "other")
    cells = _cells(part)
    work = [cells[1] or "no matrix products", f"{cells[2]} backward" if cells[2] else ""]
    lines = (f"{cells[0]} parameters", ", ".join(w for w in work if w), f"peak {cells[4]}")
    return Box(box_id, part.component, lines, "conv" if part.component.startswith("vae") else "linear")
