"""`sora-spec consolidate`: a checkpoint's weights as safetensors, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from sora_spec import output
from sora_spec.errors import UserError

Stage = Literal["denoiser", "vae"]


def consolidate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    stage: Annotated[Stage, typer.Option(help="Whose weights.")] = "denoiser",
    step: Annotated[int | None, typer.Option(help="Of the checkpoint; the newest whole one when left out.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="FILE.safetensors for the moving average alone, or the weights where none is kept. "
            "RUN/weights/STAGE-step-N/{model,ema}.safetensors when left out.",
        ),
    ] = None,
    no_ema: Annotated[bool, typer.Option("--no-ema", help="With --out: the weights, not their average.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a checkpoint's weights and their moving average as safetensors, under our names. Prints the paths.

    Checkpoints of several ranks are folders of shards, which few programs read.
    """
    from safetensors.torch import save

    from sora_spec.builders.weights.files import read_state
    from sora_spec.builders.weights.layouts import Origin
    from sora_spec.disk.atomic import write_atomically
    from sora_spec.disk.checkpoints import AVERAGE, MODEL, part_of, whole_checkpoint
    from sora_spec.disk.run_folder import RunFolder

    opened = RunFolder.open(run)
    if out is not None and out.suffix != ".safetensors":
        raise UserError(f"{out} is no name for the weights", "end it in .safetensors")
    found = whole_checkpoint(opened.stage(stage), (MODEL, AVERAGE), step)
    parts = [name for name in (AVERAGE, MODEL) if part_of(found.path, name).exists()]
    if out is None:
        targets = {name: run / "weights" / f"{stage}-{found.path.name}" / name for name in parts}
    else:
        targets = {MODEL if no_ema else parts[0]: out}
    taken = [path for path in targets.values() if path.exists()]
    if taken and not force:
        raise UserError(f"{taken[0]} exists already", "replace it with --force, or name another with --out")
    for name, target in targets.items():
        origin = Origin(opened.path.resolve().name, opened.load_spec().name, stage, found.step, name == AVERAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, save(read_state(part_of(found.path, name)), origin.text()))
    if as_json:
        output.data(json.dumps({"step": found.step, "paths": [str(path) for path in targets.values()]}))
        return
    for target in targets.values():
        output.data(str(target))
