"""`sora-spec show`: the resolved spec and the shapes that follow from it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_spec import output
from sora_spec.cli.arguments import OneSpec, one_spec
from sora_spec.language.loading import dump_spec, load_spec
from sora_spec.language.shapes import Shapes, derive_shapes

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def show(
    arguments: OneSpec,
    as_json: Annotated[bool, typer.Option("--json", help="Print spec and shapes, or the graph, as JSON.")] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Print the model graph: every op with its shape, FLOPs, bytes and line.")
    ] = False,
    component: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Of a graph: text_encode, denoiser, denoiser_step, optimizer_step, ema_step, sampler_step, "
            "vae_encode, vae_decode, vae_step; `all` is an overview and the denoiser.",
        ),
    ] = "all",
    format: Annotated[str, typer.Option(metavar="text|json|mermaid|svg", help="Of a graph.")] = "text",
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="How the graph runs: batch=4, precision=bf16, attention=math, …"),
    ] = None,
) -> None:
    """Print the resolved spec, defaults included, below the shapes that follow from it.

    The shapes are YAML comments: what is printed is a spec again. With --graph, print what a component of it runs.
    """
    path, overrides = one_spec(arguments)
    if graph:
        from sora_spec.cli.show_graph import show_graph

        show_graph(path, overrides, component, "json" if as_json else format, setting or [])
        return
    spec = load_spec(path, overrides)
    shapes = derive_shapes(spec)
    if as_json:
        values = {"spec": spec.model_dump(mode="json"), "shapes": shape_values(spec, shapes)}
        output.json_data(values, indent=2)
    else:
        comments = "".join(f"# {line}\n" for line in _summary(spec, shapes))
        text = dump_spec(spec)
        output.data(comments + (text if output.encodable(text) else dump_spec(spec, ascii_only=True)))


def shape_values(spec: Spec, shapes: Shapes) -> dict[str, Any]:
    """The derived shapes as JSON values: (channels, frames, height, width); the grid is (frames, rows, columns)."""
    return {
        "video": list(shapes.video),
        "seconds": spec.clip.seconds,
        "latent": list(shapes.latent),
        "grid": list(shapes.grid),
        "tokens": shapes.tokens,
        "out_channels": shapes.out_channels,
        "video_values": prod(shapes.video),
        "latent_values": prod(shapes.latent),
        "compression": prod(shapes.video) / prod(shapes.latent),
    }


def _summary(spec: Spec, shapes: Shapes) -> list[str]:
    values = shape_values(spec, shapes)
    frames, rows, columns = shapes.grid
    size = f"{shapes.frames} × {shapes.height} × {shapes.width}"
    pixels, latents = values["video_values"], values["latent_values"]
    return [
        f"{spec.name}",
        f"video        {size} pixels, {values['seconds']:.4g} s at {spec.clip.fps:g} frames a second",
        f"latents      {' × '.join(map(str, shapes.latent))}  (channels × frames × height × width)",
        f"compression  {values['compression']:.4g}-fold: {pixels:,} values to {latents:,}",
        f"tokens       {shapes.tokens:,} a clip = {frames} × {rows} × {columns}",
        f"network      {shapes.channels} channels in, {shapes.out_channels} out",
    ]
