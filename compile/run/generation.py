"""A pipeline's clips on disk, with a contact sheet and a record of every setting. Torch-free."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora_spec import output
from sora_spec.compile.run.pipeline import Asked, Clip, Pipeline, default_batch
from sora_spec.disk.atomic import sweep, write_atomically
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import NoCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.recipe.parts import ROLES
from sora_spec.video import write_contact_sheet, write_mp4, write_png

RECORD = "generate.json"
SHEET = "contact-sheet.png"
SHEET_COLUMNS = 8


@dataclass(frozen=True)
class Job:
    """What to generate, and where to put it."""

    source: Path
    asked: Sequence[Asked]
    names: Sequence[str] | None
    """Class names in label order."""
    seed: int
    batch: int | None
    folder: Path
    fields: Sequence[str] = ()
    """What was set of a spec that is the source, its weights among them."""
    negative: str | None = None
    """The prompt that guidance leads away from."""


def clip_name(spec: Spec, index: int, asked: Asked, seed: int) -> str:
    """File of one clip: `003-label7-seed0.mp4`, `003-a-cat-on-a-wall-seed0.mp4`; `003-none-seed0.mp4` without a label
    or a prompt; a `.png` where it is an image."""
    named = "" if isinstance(spec.condition, NoCondition) else "none-"
    if isinstance(asked, int):
        named = f"label{asked}-"
    elif asked is not None:
        words = "-".join(re.findall(r"[a-z0-9]+", asked.lower()))[:40].strip("-")
        named = f"{words}-" if words else ""
    return f"{index:03d}-{named}seed{seed}.{'png' if spec.clip.frames == 1 else 'mp4'}"


def choose_folder(asked: Path | None, name: str, names: Sequence[str], force: bool) -> Path:
    """Where the clips go: the folder asked for, else `out/NAME`, `out/NAME-2`, … whichever is new.

    Raises UserError when a file in the folder asked for would be overwritten and `force` is not set.
    """
    if asked is not None:
        taken = [file for file in (*names, SHEET, RECORD) if (asked / file).exists()]
        if taken and not force:
            raise UserError(
                f"{asked / taken[0]} exists already", "overwrite with --force, or name another folder with --out"
            )
        for part in (asked, *asked.parents):
            if os.path.lexists(part) and not part.is_dir():
                raise UserError(f"{part} is not a folder", "name a folder with --out")
        return asked
    number = 1
    while True:
        folder = Path("out") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists() or not any(folder.iterdir()):
            return folder
        number += 1


def run_job(pipeline: Pipeline, job: Job) -> dict[str, Any]:
    """Generate, write each clip (mp4, or PNG), the contact sheet and `generate.json`; returns the record."""
    started = time.perf_counter()
    spec = pipeline.spec
    sweep(job.folder)
    total = None if pipeline.calls is None else pipeline.calls * len(job.asked)
    clips: list[dict[str, Any]] = []
    rows: list[NDArray[np.uint8]] = []
    writing = 0.0
    count, kind = len(job.asked), "image" if spec.clip.frames == 1 else "clip"
    with output.progress(f"generating {count} {kind}{'s' * (count != 1)}", total) as advance:
        for clip in pipeline.generate(job.asked, job.seed, job.batch, advance, job.negative):
            before = time.perf_counter()
            file = clip_name(spec, clip.index, clip.asked, job.seed)
            if len(clip.frames) == 1:
                write_png(job.folder / file, clip.frames[0], clip.prompt)
            else:
                write_mp4(job.folder / file, clip.frames, spec.clip.fps, comment=clip.prompt)
            clips.append(_describe(file, clip, job))
            rows.append(_picks(clip.frames))
            writing += time.perf_counter() - before
    texts = [] if pipeline.prompts is None else [str(prompt or "") for prompt in job.asked]
    write_contact_sheet(job.folder / SHEET, rows, SHEET_COLUMNS, texts=texts)
    seconds = {**pipeline.seconds, "video": writing, "total": time.perf_counter() - started}
    record = describe_job(pipeline, job) | {
        "clips": clips,
        "contact_sheet": SHEET,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    write_atomically(job.folder / RECORD, json.dumps(record, indent=2) + "\n")
    return record


def describe_job(pipeline: Pipeline, job: Job) -> dict[str, Any]:
    """Every setting that the clips follow from."""
    spec = pipeline.spec
    return {
        "name": spec.name,
        "source": str(job.source),
        **({"fields": list(job.fields)} if job.fields else {}),
        "folder": str(job.folder),
        "backend": pipeline.denoiser.backend,
        "precision": pipeline.precision,
        "offload": pipeline.denoiser.offload,
        "parts": [
            {"name": stage.name, "role": ROLES[stage.name], "runtime": stage.runtime} for stage in pipeline.stages
        ],
        "clip": spec.clip.model_dump(mode="json"),
        "sampler": spec.sampler.model_dump(mode="json"),
        "seed": job.seed,
        "batch": job.batch or default_batch(spec),
        **({} if pipeline.prompts is None else {"negative": job.negative}),
    }


def _describe(file: str, clip: Clip, job: Job) -> dict[str, Any]:
    names, label = job.names, clip.label
    return {
        "file": file,
        "index": clip.index,
        "label": clip.label,
        "class": names[label] if names is not None and label is not None and label < len(names) else None,
        "prompt": clip.prompt,
        "seed": job.seed,
    }


def _picks(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames that the contact sheet shows, so that a long job does not keep all of its videos."""
    picks = np.linspace(0, len(frames) - 1, min(SHEET_COLUMNS, len(frames))).round().astype(int)
    return frames[picks]
