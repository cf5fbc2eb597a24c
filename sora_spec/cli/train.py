"""`sora-spec train`: train a stage of a spec, go on with a run, or rehearse."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from sora_spec import output, signals
from sora_spec.errors import UserError
from sora_spec.language.abilities import refuse, training
from sora_spec.language.facts import is_learned

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.train.loop import Outcome
    from sora_spec.train.start import Rehearsal

Stage = Literal["vae", "denoiser"]


def train(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A spec file, `-`, or a run folder to go on with.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Fields to set, such as train.steps=100.")
    ] = None,
    stage: Annotated[Stage, typer.Option(help="What to train.")] = "denoiser",
    run: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; runs/NAME when left out.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build, make three steps, measure beside the plan; write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    change: Annotated[
        bool, typer.Option("--change", help="With --resume: go on with other data or settings, not bit for bit.")
    ] = False,
    origin: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Start a new run from the weights of another one.")
    ] = None,
    no_ema: Annotated[
        bool,
        typer.Option("--no-ema", help="Take weights, not their moving average: with --from, or of a VAE without."),
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; a GPU where there is one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Start although the plan says that it does not fit.")] = False,
    hardware: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your own devices, as `sora-spec probe` writes them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Train a spec's denoiser, or its VAE with --stage vae, into a run folder.

    The plan is printed first. Exit code 1: it says that the machine's memory does not suffice.
    """
    if os.environ.get("RANK", "0") != "0":
        output.set_verbosity(-1)
    if change and not resume:
        raise UserError("--change goes with --resume", f"sora-spec train {spec} --resume --change")
    if origin is not None and resume:
        raise UserError("--from begins a new run, and --resume goes on with one", "leave one of them out")
    loaded, path = _load(spec, overrides or [], run, resume or dry_run)
    refuse(loaded, training(stage))
    if no_ema and origin is None and (stage == "vae" or not is_learned(loaded.vae)):
        raise UserError(
            "--no-ema says which weights to start from, and none are read here",
            "leave it out, or name a run with --from; the run itself keeps an average by train.ema",
        )
    if dry_run:
        from sora_spec.train.start import try_stage

        _show(try_stage(loaded, path, stage, device, force, hardware, change, origin, not no_ema), as_json)
        return
    from sora_spec.train.start import train_stage

    outcome = train_stage(
        loaded,
        path,
        stage,
        resume=resume,
        change=change,
        origin=origin,
        ema=not no_ema,
        device=device,
        force=force,
        hardware=hardware,
    )
    if os.environ.get("RANK", "0") == "0":
        _report(outcome, path, stage, as_json)
    code = signals.exit_code() if outcome.status == "interrupted" else 0
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _leave(code)
    if code:
        raise typer.Exit(code)


def _leave(code: int) -> NoReturn:
    """End one rank of several at once; everything is on disk by now.

    gloo's threads may still be letting tensors go, and one that asks for the interpreter while Python takes it down
    aborts the process: the whole run would count as failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _load(spec: str, overrides: list[str], run: Path | None, may_exist: bool) -> tuple[Spec, Path]:
    """The spec, and the run folder that is meant. A run folder given as SPEC stands for its own spec."""
    from sora_spec.disk.run_folder import RunFolder
    from sora_spec.language.loading import load_spec

    if not RunFolder.is_run(spec):
        loaded = load_spec(spec, overrides)
        return loaded, run or Path("runs") / loaded.name
    if run is not None and run.resolve() != Path(spec).resolve():
        raise UserError(f"{spec} is a run folder, but --run names {run}", "give a spec file, or leave --run out")
    if not may_exist:
        raise UserError(f"{spec} is a run folder", f"go on with it: sora-spec train {spec} --resume")
    return load_spec(str(RunFolder.open(spec).spec_path), overrides), Path(spec)


def _report(outcome: Outcome, path: Path, stage: Stage, as_json: bool) -> None:
    match outcome.status:
        case "already finished":
            output.note(f"the {stage} stage is already at step {outcome.step}; nothing to do")
            output.hint(
                "train on with more steps: --resume " + ("vae.training." * (stage == "vae") or "train.") + "steps=N"
            )
        case "interrupted":
            output.note(f"stopped after step {outcome.step}; a checkpoint is written")
            output.hint(f"go on: sora-spec train {path} --stage {stage} --resume")
        case "finished":
            loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
            output.note(f"trained to step {outcome.step} in {_duration(outcome.seconds)}{loss}")
            if stage == "denoiser":
                output.hint(f"make videos: sora-spec generate {path}")
    output.data(json.dumps({"run": str(path), "stage": stage} | asdict(outcome)) if as_json else str(path))


def _show(rehearsal: Rehearsal, as_json: bool) -> None:
    if as_json:
        output.data(json.dumps(asdict(rehearsal) | {"seconds": rehearsal.seconds}))
        return
    facts = rehearsal.facts | {
        "loss": f"{rehearsal.loss:.4f} in the last of the steps",
        "memory": _memory(rehearsal),
        "time": f"{rehearsal.seconds_per_step:.3g} s a step{_predicted_time(rehearsal)}, about "
        f"{_duration(rehearsal.seconds)} for {rehearsal.steps:,} steps, without checkpoints and samples",
    }
    width = max(len(name) for name in facts)
    output.data("\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()))
    output.note("dry run: nothing was written")


def _memory(rehearsal: Rehearsal) -> str:
    """Measured peak of a step beside the predicted one."""
    memory = rehearsal.measured["memory"]
    measured, predicted = memory["allocated_bytes"], memory["predicted_allocated_bytes"]
    found = "not measured" if measured is None else f"{measured / 2**30:.4g} GiB allocated at most"
    return found if predicted is None else f"{found}, predicted {predicted['likely'] / 2**30:.4g}"


def _predicted_time(rehearsal: Rehearsal) -> str:
    predicted = rehearsal.measured["time"]["predicted_step_seconds"]
    if predicted is None:
        return ""
    return f" (predicted {predicted['likely']:.3g}, {predicted['low']:.3g}-{predicted['high']:.3g})"


def _duration(seconds: float) -> str:
    """`41 s`, `12 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
