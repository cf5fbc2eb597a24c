"""The verbs for Python: `import sora_spec; net = sora_spec.build("dit")`. See docs/python.md.

Everything is imported by the verb that needs it: `import sora_spec` costs nothing, and a plan needs no PyTorch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sora_spec.errors import UserError

if TYPE_CHECKING:
    from sora_spec.builders.backbones.interface import Denoiser
    from sora_spec.builders.vae.interface import VaeModule
    from sora_spec.compile.run.pipeline import Clip
    from sora_spec.language.diagnostics import Diagnostic
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.source import Document

    Source = str | os.PathLike[str] | Spec
    """A file, the name of a packaged spec, a run folder, or what `load` returned."""
    Overrides = Mapping[str, Any]
    """Fields of the spec by dotted path: `{"train.batch": 8, "clip.frames": 17}`."""
    Stage = Literal["denoiser", "vae"]


@dataclass(frozen=True)
class Trained:
    """How a training ended. `sample` takes it where it takes a run folder."""

    run: Path
    status: Literal["finished", "interrupted", "already finished"]
    step: int
    loss: float | None
    """That of the last line of metrics; None when none was written."""
    seconds: float

    def __fspath__(self) -> str:
        return str(self.run)


def load(source: Source, overrides: Overrides | None = None, /, **fields: Any) -> Spec:
    """The checked spec. `load("dit", {"train.batch": 8})` sets a field, as do keywords: `load("dit", name="mine")`.

    Raises SpecErrors, a UserError, with every problem: unknown fields and values out of range among them.
    """
    from sora_spec.language.loading import check

    return check(_document(source, {**(overrides or {}), **fields})).spec()


def validate(source: Source, overrides: Overrides | None = None) -> list[Diagnostic]:
    """Every problem with its line, warnings too; nothing where all is fine. Raises no error for what is in the text."""
    from sora_spec.language.loading import check

    return check(_document(source, overrides)).diagnostics


def plan(
    source: Source,
    overrides: Overrides | None = None,
    *,
    gpu: str = "",
    count: int | None = None,
    mode: Literal["train", "generate"] = "train",
    stage: Stage = "denoiser",
    batch: int | None = None,
    one_at_a_time: bool = False,
    hardware: str | os.PathLike[str] = "",
) -> dict[str, Any]:
    """What `sora-spec plan --json` prints (`specs/plan.schema.json`): verdict, memory, time, fixes. Needs no PyTorch.

    Lines of terms are None for a spec that `load` returned, which has no text. Raises SpecErrors or UserError where
    there is no plan.
    """
    from sora_spec.plan.job import Question
    from sora_spec.plan.question import advise, planned
    from sora_spec.plan.show.values import plan_values

    if mode == "train" and (batch is not None or one_at_a_time):
        raise UserError("batch and one_at_a_time are about generating", 'add mode="generate", or leave them out')
    if mode == "generate" and stage != "denoiser":
        raise UserError("stage is about training, and a generation runs every part", "leave stage out")
    document = _document(source, None)
    pairs = tuple((path, _text(path, value)) for path, value in (overrides or {}).items())
    file, placement = os.fspath(hardware), "sequential" if one_at_a_time else "resident"
    asked = Question(gpu, count, pairs, hardware=file, mode=mode, stage=stage, batch=batch, placement=placement)
    made, spec, laid = planned(document, asked)
    return plan_values(made, advise(made, spec), laid if isinstance(source, str | os.PathLike) else None)


@overload
def build(source: Source, overrides: Overrides | None = None, *, part: Literal["denoiser"] = ...) -> Denoiser: ...
@overload
def build(source: Source, overrides: Overrides | None = None, *, part: Literal["vae"]) -> VaeModule: ...
def build(source: Source, overrides: Overrides | None = None, *, part: Stage = "denoiser") -> Denoiser | VaeModule:
    """The denoising network or the VAE in fp32 with fresh weights, drawn from PyTorch's generator.

    Runs under `torch.device("meta")` too. Raises UserError for what can be described but not built.
    """
    spec = load(source, overrides)
    if part == "vae":
        from sora_spec.builders.vae.from_spec import build_vae

        return build_vae(spec)
    from sora_spec.builders.denoiser import build_denoiser

    return build_denoiser(spec)


def train(
    source: Source,
    overrides: Overrides | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    stage: Stage = "denoiser",
    resume: bool = False,
    change: bool = False,
    device: str | None = None,
    force: bool = False,
) -> Trained:
    """Train one stage into the run folder `run`, `runs/NAME` when left out, as `sora-spec train` does.

    With `resume`, `source` may be the run folder itself. Raises UserError for whatever the command refuses.
    """
    from sora_spec.disk.run_folder import RunFolder
    from sora_spec.language.abilities import refuse, training

    spec = load(source, overrides)
    refuse(spec, training(stage))
    path = Path("runs") / spec.name if run is None else Path(run)
    if isinstance(source, str | os.PathLike) and RunFolder.is_run(Path(source)):
        if not resume:
            raise UserError(f"{os.fspath(source)} is a run folder", "go on with it: resume=True")
        if run is not None and path.resolve() != Path(source).resolve():
            raise UserError(f"{os.fspath(source)} is a run folder, but run names {path}", "leave run out")
        path = Path(source)

    from sora_spec.train.start import train_stage

    outcome = train_stage(spec, path, stage, resume=resume, change=change, device=device, force=force)
    return Trained(path, outcome.status, outcome.step, outcome.loss, outcome.seconds)


def sample(
    source: str | os.PathLike[str],
    overrides: Overrides | None = None,
    *,
    labels: Sequence[int | str | None] = (),
    prompts: Sequence[str] = (),
    negative: str | None = None,
    count: int | None = None,
    unconditional: bool = False,
    seed: int = 0,
    batch: int | None = None,
    backend: Literal["auto", "torch", "onnx", "tensorrt"] = "auto",
    precision: Literal["fp32", "fp16", "bf16"] | None = None,
    ema: bool = True,
    offload: bool = False,
) -> Iterator[Clip]:
    """Clips of a run folder, a bundle, or a spec that names weights, one after another, as `sora-spec generate` makes
    them; `clip.frames` holds uint8 values (T, Y, X, 3).

    `labels`: class numbers, names, or None for the null label; in order of the classes when left out. `prompts` and
    what guidance leads away from, `negative`: of a model that is steered by text. `precision`: what the networks
    compute in; fp32 when left out, of a bundle the one it was exported in. Everything is checked and loaded by the call
    itself. Raises UserError for what the command refuses.
    """
    from sora_spec.cli.generate import check_overrides
    from sora_spec.compile.run.asking import Asking, plan_clips
    from sora_spec.compile.run.executors.opening import (
        choose_backend,
        choose_precision,
        open_pipeline,
        open_source,
        source_spec,
    )
    from sora_spec.compile.run.executors.spec_source import SpecSource
    from sora_spec.compile.run.labels import UNCONDITIONAL, check_names

    arguments = _arguments(overrides)
    opened = open_source(Path(source), "generate", arguments)
    chosen, computed = choose_backend(opened, backend), choose_precision(opened, precision)
    if isinstance(opened, SpecSource):
        arguments = []
    else:
        check_overrides(arguments, chosen == "torch")
    if batch is not None and batch < 1:
        raise UserError(f"batch {batch} is not a number of clips", "give 1 or more")
    spec = source_spec(opened, arguments)
    names = opened.classes()
    if names is not None:
        names = check_names(names, spec, f"classes.json of {os.fspath(source)}")
    asked = [UNCONDITIONAL if label is None else str(label) for label in labels]
    wanted = plan_clips(spec, Asking(asked, prompts, count, unconditional, negative), names)
    offloaded = offload or spec.export.offload
    pipeline = open_pipeline(opened, spec, chosen, ema=ema, offload=offloaded, precision=computed)
    return pipeline.generate(wanted, seed, batch, negative=negative)


def _document(source: Source, overrides: Overrides | None) -> Document:
    from sora_spec.disk.run_folder import RunFolder
    from sora_spec.language.packaged import find_spec_file
    from sora_spec.language.source import load_document, parse_document
    from sora_spec.language.span import Text

    arguments = _arguments(overrides)
    if not isinstance(source, str | os.PathLike):
        # What was left out stays left out: the planner tells a layout that was written from one that is a default.
        content = json.dumps(source.model_dump(mode="json", exclude_unset=True), indent=1)
        return parse_document(Text("<spec>", content, "values"), arguments)
    path = os.fspath(source)
    return load_document(RunFolder.open(path).spec_path if RunFolder.is_run(path) else find_spec_file(path), arguments)


def _arguments(overrides: Overrides | None) -> list[str]:
    return [f"{path}={_text(path, value)}" for path, value in (overrides or {}).items()]


def _text(path: str, value: Any) -> str:
    """A value as the YAML of an override."""
    if "=" in path:
        raise UserError(f"{path!r} is no dotted path", 'for example {"train.batch": 8}')
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=os.fspath)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no spec can hold this value: {error}", "Use text, numbers and lists.") from error
