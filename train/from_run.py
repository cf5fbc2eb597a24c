"""`train SPEC --from RUN`: a new run that starts from another one's weights, and what is said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_spec import output
from sora_spec.builders.weights.dit import own_state
from sora_spec.builders.weights.files import shapes_of
from sora_spec.builders.weights.vae_run import expected_shapes
from sora_spec.disk.checkpoints import Weights, pick_weights
from sora_spec.disk.run_folder import RunFolder, StageName
from sora_spec.errors import UserError
from sora_spec.language.facts import is_learned
from sora_spec.language.schema.spec import Spec
from sora_spec.train.resume import changed_fields


@dataclass(frozen=True)
class Origin:
    """Where a new run's weights come from."""

    run: RunFolder
    stage: StageName
    step: int
    averaged: bool

    def facts(self) -> dict[str, Any]:
        """As the run's history keeps it."""
        return {"run": str(self.run.path.absolute()), "step": self.step, "average": self.averaged}

    def warn_of_classes(self, now: Sequence[str] | None) -> None:
        """Say which label has another name than where its row of the table was learnt."""
        known = self.run.classes() if self.stage == "denoiser" else None
        odd = [(n, *pair) for n, pair in enumerate(zip(known or (), now or (), strict=False)) if pair[0] != pair[1]]
        if odd:
            number, before, after = odd[0]
            output.warn(
                f"{len(odd)} labels have another name than in {self.run.path}: {number} was {before!r} and is now "
                f"{after!r}, starting from what was learnt of {before!r}"
            )


def start_from(spec: Spec, path: Path, stage: StageName, ema: bool) -> tuple[Spec, Origin]:
    """The spec with the weights of a run's stage as its start, and where they come from.

    For the denoiser the run's VAE comes along, where the spec names none and the run trained one. Raises UserError
    when `path` is no run, has no whole checkpoint of the stage, or when the spec names other weights already.
    """
    run = RunFolder.open(path)
    weights = pick_weights(run, stage, ema)
    if weights is None:
        raise UserError(f"{path} has no checkpoint of the {stage} to start from", "name another run with --from")
    section = "vae" if stage == "vae" else "backbone"
    named = getattr(getattr(spec, section), "weights", None)
    if named is not None:
        raise UserError(
            f"{section}.weights names {named}, and --from names {path}: only one of them can be the start",
            f"leave --from out, or add {section}.weights=null",
        )
    _tell(spec, run, stage, weights)
    started = _with_weights(spec, section, weights)
    if stage == "denoiser" and getattr(spec.vae, "weights", None) is None and is_learned(spec.vae):
        vae = pick_weights(run, "vae")
        if vae is not None:
            output.note(f"the VAE comes along: {_what(vae)} of its vae stage")
            started = _with_weights(started, "vae", vae)
    return started, Origin(run, stage, weights.step, weights.averaged)


def _with_weights(spec: Spec, section: str, weights: Weights) -> Spec:
    changed = getattr(spec, section).model_copy(update={"weights": str(weights.part.absolute())})
    return spec.model_copy(update={section: changed})


def _what(weights: Weights) -> str:
    return f"the {'moving average' if weights.averaged else 'weights'} of step {weights.step}"


def _tell(spec: Spec, run: RunFolder, stage: StageName, weights: Weights) -> None:
    """What is taken, what is left, and what is other than there."""
    shapes = shapes_of(weights.part)
    expected = {name: tuple(shape) for name, shape in _expected(spec, stage).items()}
    same = [name for name, shape in shapes.items() if expected.get(name) == shape]
    left = sorted(name for name in shapes if name not in same)
    output.note(
        f"starting from {run.path}: {_what(weights)} of its {stage} stage, {len(same)} of {len(shapes)} tensors"
    )
    output.note("left there: the optimiser's moments, the count of steps, the order of the data")
    if left:
        shown = ", ".join(left[:6]) + (", …" if len(left) > 6 else "")
        output.note(f"of other shapes here: {shown}; tables of positions are computed anew")
    changed = changed_fields(run.load_spec(), spec, stage)
    if changed:
        output.note("other than there: " + ", ".join(f"{c.path} {c.before!r} → {c.after!r}" for c in changed))
    meant = [c.path for c in changed if c.path.startswith("objective.") or c.path == "vae.scale"]
    if meant:
        output.warn(f"{', '.join(meant)}: the weights have learnt under other values and must learn anew")


def _expected(spec: Spec, stage: StageName) -> dict[str, Any]:
    if stage == "vae":
        return dict(expected_shapes(spec))
    return {name: tensor.shape for name, tensor in own_state(spec).items()}
