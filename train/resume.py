"""Which fields of a spec may change between the parts of one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sora_spec.errors import UserError
from sora_spec.run_folder import RunFolder, StageName
from sora_spec.schema.spec import Spec

# What decides a stage's weights, and what inside it does not.
_DECIDES: dict[StageName, tuple[str, ...]] = {
    "vae": ("clip", "vae", "train.seed", "train.flip", "train.ema_warmup", "condition", "parallel"),
    "denoiser": (
        "clip", "vae", "patch", "backbone", "temporal", "condition", "objective", "train", "parallel",
    ),
}  # fmt: skip
_FREE: dict[StageName, tuple[str, ...]] = {
    "vae": ("vae.weights", "vae.decoder", "vae.training.data", "vae.training.steps", "parallel.reshard"),
    "denoiser": (
        "backbone.weights", "vae.decoder", "vae.training", "train.data", "train.steps", "train.log_every",
        "train.checkpoint_every", "train.keep", "train.sample_every", "train.workers", "parallel.reshard",
    ),
}  # fmt: skip


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _covers(prefixes: tuple[str, ...], path: str) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def changed_fields(old: Spec, new: Spec, stage: StageName) -> list[tuple[str, Any, Any]]:
    """Fields with old and new value that would make a resumed `stage` another run. Data is compared by its content."""
    before, after = dict(_flat(old.model_dump())), dict(_flat(new.model_dump()))
    paths = [path for path in before | after if before.get(path) != after.get(path)]
    decisive = [path for path in paths if _covers(_DECIDES[stage], path) and not _covers(_FREE[stage], path)]
    steps = "vae.training" if stage == "vae" else "train"
    if f"{steps}.steps" in paths and after.get(f"{steps}.schedule") == "cosine":
        decisive.append(f"{steps}.steps")  # a cosine reaches zero at the last step, so all rates depend on it
    return [(path, before.get(path), after.get(path)) for path in decisive]


def check_same_run(run: RunFolder, spec: Spec) -> None:
    """Refuse a spec under which a stage that has begun in `run` would have come out otherwise.

    Raises UserError that lists the fields with both values.
    """
    old = run.load_spec()
    stages: tuple[StageName, ...] = ("vae", "denoiser")
    for stage in stages:
        if not run.stage(stage).path.exists():
            continue
        changed = changed_fields(old, spec, stage)
        if changed:
            listing = "\n".join(f"  {path}: {before!r} in the run, {after!r} now" for path, before, after in changed)
            raise UserError(
                f"the {stage} stage of {run.path} was trained under another spec:\n{listing}",
                f"go on with the run's own spec: sora-spec train {run.path} --resume; or start another run with --run",
            )
