"""`train_stage` and `try_stage`: from a spec to a trained stage in a run folder, or to a rehearsal without files."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from sora_spec import output
from sora_spec.errors import UserError
from sora_spec.run_folder import RunFolder, StageName, write_atomically
from sora_spec.schema.spec import Spec
from sora_spec.train.data.loader import load_batches
from sora_spec.train.loop import Loop, Outcome
from sora_spec.train.ranks import Ranks, started_ranks
from sora_spec.train.resume import check_same_run
from sora_spec.train.settings import stage_settings
from sora_spec.train.task import Task
from sora_spec.train.trainer import NotFiniteError, Trainer


def build_task(spec: Spec, stage: StageName, run: RunFolder | None, ranks: Ranks, fresh: bool = True) -> Task:
    """The task of a stage. `fresh`: start from the weights that the spec names, if any."""
    if stage == "vae":
        from sora_spec.train.vae_stage import VaeTask

        return VaeTask(spec, ranks, fresh)
    from sora_spec.train.denoiser_stage import DenoiserTask

    return DenoiserTask(spec, run, ranks, fresh)


def train_stage(
    spec: Spec, path: Path, stage: StageName = "denoiser", *, resume: bool = False, device: str | None = None
) -> Outcome:
    """Train one stage of `spec` into the run folder `path`, from its newest checkpoint with `resume`.

    Everything that can fail for a user's reason is checked before the first file is written.

    Raises UserError for a spec, data, device or run folder that does not allow it, and when the loss diverges.
    """
    settings = stage_settings(spec, stage)
    known = check_run(spec, path, stage, resume)
    with started_ranks(spec, device, settings.precision) as ranks:
        fresh = known is None or known.stage(stage).latest() is None
        task = build_task(spec, stage, known, ranks, fresh)
        if ranks.is_main:
            _record_run(spec, path, known, task)
        ranks.wait()
        return Loop(task, RunFolder.open(path).stage(stage), ranks).run()


def check_run(spec: Spec, path: Path, stage: StageName, resume: bool) -> RunFolder | None:
    """The run folder if it exists and this stage may be trained in it, None if it is to be made.

    Raises UserError when the stage has begun and `resume` is not given, or when the spec is another one.
    """
    if not (path / "spec.yaml").exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not a run folder", "name another folder with --run")
        if resume:
            output.note(f"{path} does not exist yet: starting from the beginning")
        return None
    run = RunFolder.open(path)
    if run.stage(stage).path.exists() and not resume:
        raise UserError(
            f"{path} already holds a {stage} stage",
            f"go on with it: sora-spec train {path} --stage {stage} --resume; or start another: --run {path}-2",
        )
    check_same_run(run, spec)
    return run


def _record_run(spec: Spec, path: Path, known: RunFolder | None, task: Task) -> None:
    """Make the run folder, or bring its spec up to date, and note what made it."""
    from sora_spec.loading import dump_spec

    run = known or RunFolder.create(path, dump_spec(spec))
    if known is not None:
        write_atomically(run.spec_path, dump_spec(spec))
    if task.dataset.classes is not None:
        write_atomically(run.classes_path, json.dumps(task.dataset.classes) + "\n")
    names = ("sora-spec", "torch", "numpy", "av")
    run.record(python=platform.python_version(), versions={name: metadata.version(name) for name in names})


@dataclass(frozen=True)
class Rehearsal:
    """What a dry run found."""

    facts: dict[str, str]
    seconds_per_step: float
    steps: int
    loss: float

    @property
    def seconds(self) -> float:
        """Estimate for all steps."""
        return self.seconds_per_step * self.steps


def try_stage(spec: Spec, path: Path, stage: StageName = "denoiser", device: str | None = None) -> Rehearsal:
    """Build everything, make two steps on real clips and time the second. Nothing is written.

    Raises UserError for whatever `train_stage` would refuse, except that a stage which has begun is no hindrance.
    """
    settings = stage_settings(spec, stage)
    known = check_run(spec, path, stage, resume=path.exists())
    with started_ranks(spec, device, settings.precision) as ranks:
        task = build_task(spec, stage, known, ranks)
        trainer = Trainer(task, ranks)
        order = trainer.order(0)
        batches = load_batches(task.dataset, order, workers=0)
        try:
            results = [trainer.step(step, batches, order) for step in range(min(2, settings.steps))]
        except NotFiniteError as error:
            raise UserError(f"in the first two steps {error}", "lower the learning rate") from None
    result = results[-1]
    facts = task.describe() | {
        "data": f"{len(task.dataset)} files of {settings.data}",
        "batch": f"{settings.batch} clips a step: {order.micro_batch} × {ranks.world} ranks × {settings.accumulation}",
        "precision": f"{settings.precision} on {ranks.device}",
        "run folder": str(path),
    }
    compute = result.seconds - (result.data_seconds if settings.workers else 0.0)
    return Rehearsal(facts, compute, settings.steps, result.terms["loss"])
