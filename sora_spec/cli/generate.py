"""`sora-spec generate`: video from a run folder or a bundle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sora_spec import output
from sora_spec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sora_spec.language.schema.spec import Spec

_SETTING = re.compile(r"[a-z_]+(\.[a-z0-9_]+)*=")
Asked = Literal["auto", "torch", "onnx", "tensorrt"]
Precision = Literal["fp32", "fp16", "bf16"]


def generate(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|BUNDLE|SPEC", help="Run folder (eager), bundle (exported), spec with weights."),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar='["PROMPT"]... [KEY=VALUE]...',
            help="Prompts of a model that is steered by text; and sampler.KEY in place of the spec's; of a run also "
            "vae.tiling and vae.streaming; of a spec any field.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Label of a clip: a number, a class name, or none; may be given several times."),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Labels as ranges and lists: 0-9, or 0,3,5-7.")] = None,
    unconditional: Annotated[
        bool, typer.Option("--unconditional", help="Clips without a label: the null label for all.")
    ] = False,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt, also one that looks like KEY=VALUE; may be given several times.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts, one a line.")] = None,
    negative: Annotated[
        str | None, typer.Option(help="Prompt that guidance leads away from, in place of none.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Number of clips; with labels or prompts a multiple of theirs.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise. Clip i of a seed is the same in whatever batch.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Short for sampler.steps=N.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Short for sampler.guidance=G; 1 is off.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip, in place of the spec's.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the clips; a new one under out/ when left out.")
    ] = None,
    backend: Annotated[Asked, typer.Option(help="What runs the graphs.")] = "auto",
    precision: Annotated[
        Precision | None,
        typer.Option(help="What the networks compute in: fp32 when left out, of a bundle the one it was exported in."),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Clips sampled at a time.")] = None,
    no_ema: Annotated[
        bool, typer.Option("--no-ema", help="Take the weights of a run, not their moving average.")
    ] = False,
    offload: Annotated[
        bool,
        typer.Option("--offload", help="Keep only the part that is running on the device. Same clips, less memory."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record of the job as JSON.")] = False,
) -> None:
    """Generate video: one mp4 per clip, PNG of images, a contact sheet and generate.json. Prints the files."""
    from sora_spec.compile.bundle.bundle import Bundle
    from sora_spec.compile.run.asking import Asking, plan_clips
    from sora_spec.compile.run.executors.opening import (
        choose_backend,
        choose_precision,
        open_pipeline,
        open_source,
        source_spec,
    )
    from sora_spec.compile.run.executors.spec_source import SpecSource
    from sora_spec.compile.run.labels import check_names
    from sora_spec.compile.run.prompts import read_prompts

    written, overrides = split_words(words or ())
    opened = open_source(source, "generate", overrides)
    chosen, computed = choose_backend(opened, backend), choose_precision(opened, precision)
    short = _short(steps, guidance, frames)
    fields = overrides if isinstance(opened, SpecSource) else []
    if isinstance(opened, SpecSource):
        spec = source_spec(opened, short)
    else:
        check_overrides(overrides, chosen == "torch")
        spec = source_spec(opened, [*overrides, *short])
    if no_ema and isinstance(opened, SpecSource):
        raise UserError("--no-ema goes with a run folder: a spec names its weights", "leave --no-ema out")
    if no_ema and chosen != "torch":
        raise UserError(
            "--no-ema goes with a run folder: a bundle holds one set of weights", "sora-spec export RUN --no-ema"
        )
    if batch is not None and batch < 1:
        raise UserError(f"--batch {batch} is not a number of clips", "give 1 or more")
    names = opened.classes()
    if names is not None:
        names = check_names(names, spec, f"classes.json of {source}")
    asking = Asking(
        [*(label or ()), *([labels] if labels is not None else ())],
        [*written, *(prompt or ()), *([] if prompts is None else read_prompts(prompts))],
        count,
        unconditional,
        negative,
    )
    wanted = plan_clips(spec, asking, names)
    _check_seed(seed)

    from sora_spec.compile.run.generation import Job, choose_folder, clip_name, run_job

    if isinstance(opened, Bundle):
        for name in opened.manifest.source.random:
            output.warn(f"the weights of {name} in {source} are random: its clips show nothing")
    files = [clip_name(spec, index, value, seed) for index, value in enumerate(wanted)]
    folder = choose_folder(out, f"{spec.name}-{chosen}", files, force)
    offloaded = offload or spec.export.offload
    pipeline = open_pipeline(opened, spec, chosen, ema=not no_ema, offload=offloaded, precision=computed)
    if pipeline.prompts is not None:
        pipeline.prompts.warn_of_cut([*(text for text in wanted if isinstance(text, str)), negative])
    record = run_job(pipeline, Job(source, wanted, names, seed, batch, folder, fields, negative))
    _report(spec, folder, record, as_json)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Prompts, and settings `key=value`: a path of lower-case names before an equals sign."""
    settings = [word for word in words if _SETTING.match(word)]
    return [word for word in words if not _SETTING.match(word)], settings


def check_overrides(given: Sequence[str], eager: bool) -> None:
    """Raise UserError for a `key=value` that would change the trained model."""
    pieces = ("vae.tiling", "vae.streaming")
    for override in given:
        path, equals, _ = override.partition("=")
        if path.startswith(pieces) and not eager:
            raise UserError(f"{path} of a bundle is fixed: its decoder was exported for it", "give the run folder")
        if not equals or not path.startswith(("sampler.", *pieces)):
            raise UserError(
                f"{override!r} is not a setting of the sampler; the rest of the spec is fixed by training",
                "for example sampler.steps=50 or sampler.guidance=4",
            )


def _short(steps: int | None, guidance: float | None, frames: int | None) -> list[str]:
    """The short options as `key=value`."""
    short = {"sampler.steps": steps, "sampler.guidance": guidance, "clip.frames": frames}
    return [f"{path}={value}" for path, value in short.items() if value is not None]


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise UserError(f"--seed {seed} is outside 0..2^64-1", "choose a non-negative 64-bit integer")


def _report(spec: Spec, folder: Path, record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.data(json.dumps(record, indent=2))
        return
    clips: list[dict[str, Any]] = record["clips"]
    for name in (*(clip["file"] for clip in clips), record["contact_sheet"], "generate.json"):
        output.data(str(folder / str(name)))
    seconds: dict[str, float] = record["seconds"]
    shares = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total")
    image = spec.clip.frames == 1
    size = f"{spec.clip.width}x{spec.clip.height}"
    many = "s" * (len(clips) != 1)
    what = f"image{many} of {size}" if image else f"clip{many} of {spec.clip.frames} frames at {size}"
    output.note(f"{len(clips)} {what} in {seconds['total']:.1f} s: {shares}")
