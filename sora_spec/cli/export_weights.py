"""`sora-spec export-weights`: a run's weights for the published programs and for diffusers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from sora_spec import output
from sora_spec.errors import UserError

Layout = Literal["official", "diffusers"]
Stage = Literal["denoiser", "vae"]


def export_weights(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    layout: Annotated[
        Layout,
        typer.Option(
            help="official: DiT's, SiT's, Latte's, OpenDiT's, Open-Sora 1.0's or ldm's names, whichever the spec is; "
            "diffusers: DiTTransformer2DModel's or AutoencoderKL's."
        ),
    ],
    stage: Annotated[Stage, typer.Option(help="Whose weights.")] = "denoiser",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="FILE.pt or FILE.safetensors; for diffusers a folder or FILE.safetensors. "
            "RUN/weights/STAGE-official.pt or RUN/weights/STAGE-diffusers when left out.",
        ),
    ] = None,
    no_ema: Annotated[bool, typer.Option("--no-ema", help="The weights, not their moving average.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what lies at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a run's weights in a layout that others read. Prints the path.

    The moving average is taken where the run keeps one. Every tensor is checked to come back as it was; the step and
    the run stand in the file (safetensors' metadata, or `source` of a .pt file).
    """
    from sora_spec.builders.weights.layouts import (
        Origin,
        arrange_denoiser,
        arrange_vae,
        check_target,
        check_vae,
        write_weights,
    )
    from sora_spec.builders.weights.vae_run import tensors_of
    from sora_spec.disk.checkpoints import pick_weights
    from sora_spec.disk.run_folder import RunFolder

    opened = RunFolder.open(run)
    target = out or run / "weights" / (f"{stage}-official.pt" if layout == "official" else f"{stage}-diffusers")
    check_target(target, layout, force)
    spec = opened.load_spec()
    if stage == "vae":
        check_vae(spec, layout)
    weights = pick_weights(opened, stage, ema=not no_ema)
    if weights is None:
        raise UserError(
            f"{run} has no checkpoint of the {'VAE' if stage == 'vae' else 'denoiser'}",
            f"train it first: sora-spec train {run} --stage {stage} --resume; a VAE named by vae.weights is its file",
        )
    arrange = arrange_denoiser if stage == "denoiser" else arrange_vae
    arranged = arrange(tensors_of(weights), spec, layout)
    origin = Origin(opened.path.resolve().name, spec.name, stage, weights.step, weights.averaged)
    write_weights(arranged, origin, target)
    if as_json:
        output.data(json.dumps({"path": str(target), "tensors": len(arranged.state), **asdict(origin)}))
        return
    kind = "the moving average" if weights.averaged else "the weights"
    output.note(f"{len(arranged.state)} tensors, {kind} of step {weights.step}")
    output.data(str(target))
