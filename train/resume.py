"""Which fields of a spec may change between the parts of one run.

A field is one of four kinds. It decides nothing of a stage's weights (`train.steps`, the sampler); it changes them but
the run can go on (`train.batch`, `parallel`), which `--change` allows; it makes another network of it or gives what is
learnt another meaning (`backbone`, `objective`); or it belongs to the other stage.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sora_spec.disk.checkpoints import State
from sora_spec.disk.history import DATA, TEXT, VAE, Change, accepted
from sora_spec.disk.run_folder import STAGES, RunFolder, StageName
from sora_spec.errors import UserError
from sora_spec.language.loading import spec_from_values
from sora_spec.language.schema.spec import Spec

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
        "train.checkpoint_every", "train.keep", "train.sample_every", "train.prompts", "train.workers",
        "parallel.reshard", "condition.encoder",
    ),
}  # fmt: skip
_CHANGEABLE: dict[StageName, tuple[str, ...]] = {
    "vae": ("vae.training", "train", "parallel"),
    "denoiser": ("train", "parallel", "vae.weights"),
}
"""What `--change` allows: the same network goes on learning the same thing."""
_FIELD = re.compile(r"\b[a-z]+(?:\.[a-z_]+)+(?==)|\b[a-z]+(?=: \{)")


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _covers(prefixes: tuple[str, ...], path: str) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def changed_fields(old: Spec, new: Spec, stage: StageName) -> list[Change]:
    """Fields that would make a resumed `stage` another run, with old and new value. Data is compared by its content."""
    before, after = (dict(_flat(spec.model_dump(mode="json"))) for spec in (old, new))
    paths = [path for path in before | after if before.get(path) != after.get(path)]
    decisive = [path for path in paths if _covers(_DECIDES[stage], path) and not _covers(_FREE[stage], path)]
    steps = "vae.training" if stage == "vae" else "train"
    if f"{steps}.steps" in paths and after.get(f"{steps}.schedule") == "cosine":
        decisive.append(f"{steps}.steps")  # a cosine reaches zero at the last step, so all rates depend on it
    return [Change(path, before.get(path), after.get(path)) for path in decisive]


def check_same_run(
    run: RunFolder, spec: Spec, stage: StageName, states: Mapping[StageName, State], change: bool
) -> list[Change]:
    """Refuse a spec under which what has begun in `run` would come out otherwise; with `change` only what cannot work.

    `states`: of the checkpoints that are there. Returns the changes of `stage` that are to be noted.

    Raises UserError that lists the fields with both values.
    """
    noted: list[Change] = []
    for name in STAGES:
        state = states.get(name)
        if state is None:
            continue
        old = run.load_spec() if state.spec is None else spec_from_values(state.spec)
        changed = changed_fields(old, spec, name)
        if name != stage and state.spec is not None:
            # Its own spec stands in its checkpoint: whoever goes on with it is told then.
            changed = [field for field in changed if not _can_change(field, name)]
        if name == stage:
            noted = [field for field in changed if not accepted(run.history_path, stage, state.step, field)]
            changed = noted
        _refuse(run, name, changed, change)
    return noted


def _refuse(run: RunFolder, stage: StageName, changed: Sequence[Change], change: bool) -> None:
    fixed = [field for field in changed if not _can_change(field, stage)]
    if fixed:
        raise UserError(
            f"the {stage} stage of {run.path} was trained under another spec, and no run can go on across this:\n"
            + _listing(fixed),
            f"start a new run from its weights: sora-spec train SPEC --from {run.path} --run {run.path}-2",
        )
    if changed and not change:
        raise UserError(
            f"the {stage} stage of {run.path} was trained under another spec:\n" + _listing(changed),
            f"go on with the run's own spec: sora-spec train {run.path} --stage {stage} --resume; "
            "or go on with the new values, not bit for bit the run it would have been: add --change",
        )


def _can_change(field: Change, stage: StageName) -> bool:
    if field.path == "condition.dropout":  # from or to 0, the table of labels gets another size
        return bool(field.before) and bool(field.after)
    return _covers(_CHANGEABLE[stage], field.path)


@contextmanager
def going_on(run: RunFolder | None, stage: StageName) -> Generator[None]:
    """Let a refusal inside the body whose hint sets what a begun run cannot change say how the hint is followed."""
    try:
        yield
    except UserError as error:
        if run is None or run.stage(stage).latest() is None:
            raise
        named = [name for name in _FIELD.findall(error.hint or "") if _is_fixed(name, stage)]
        if not named:
            raise
        raise UserError(
            error.message,
            f"{error.hint}; a run that has begun keeps its {named[0]}, so that this needs a new one from its weights: "
            f"sora-spec train SPEC --from {run.path} --run {run.path}-2",
        ) from error


def _is_fixed(path: str, stage: StageName) -> bool:
    decides = _covers(_DECIDES[stage], path) and not _covers(_FREE[stage], path)
    return decides and not _covers(_CHANGEABLE[stage], path)


def _listing(changed: Sequence[Change]) -> str:
    return "\n".join(f"  {field.path}: {field.before!r} in the run, {field.after!r} now" for field in changed)


def check_same_data(run: RunFolder, source: str, before: State, now: State, change: bool) -> list[Change]:
    """Refuse other data than the checkpoint `before` was trained on, unless `change` allows it.

    Raises UserError; gives the change that is to be noted.
    """
    data, why = Change(DATA, before.data, now.data), "other files, labels or captions, or another order"
    if before.data == now.data and before.sizes is not None:
        data, why = Change(DATA, before.sizes, now.sizes), "the files have the old names, but not as many bytes"
    if data.before == data.after or accepted(run.history_path, before.stage, before.step, data):
        return []
    if not change:
        raise UserError(
            f"the clips of {source} are not those that {run.path} was trained on up to step {before.step}: {why}",
            "bring the data back as it was; or go on with these from here on: add --change",
        )
    return [data]


_FROZEN = {
    VAE: ("VAE", "bring the VAE's checkpoint back; or go on with the new VAE from here on: add --change"),
    TEXT: ("text encoder", "bring its folder back as it was; or go on with the new one from here on: add --change"),
}


def check_same_frozen(run: RunFolder, before: State, now: State, change: bool) -> list[Change]:
    """Refuse another VAE or text encoder than what the denoiser learnt with up to the checkpoint `before`, as above."""
    found = [Change(VAE, before.vae, now.vae), Change(TEXT, before.text, now.text)]
    moved = [
        part
        for part in found
        if part.before not in (None, part.after) and not accepted(run.history_path, before.stage, before.step, part)
    ]
    if moved and not change:
        name, hint = _FROZEN[moved[0].path]
        raise UserError(
            f"the {name} of {run.path} is not the one that its denoiser learnt with up to step {before.step}", hint
        )
    return moved


def joined_classes(run: RunFolder, source: str, now: Sequence[str] | None) -> list[str] | None:
    """Class names in label order after other data has come: those of the run, and new ones behind them.

    Raises UserError when a label that was trained would get another name's clips.
    """
    known = run.classes() or []
    for number, (before, after) in enumerate(zip(known, now or [], strict=False)):
        if before != after:
            raise UserError(
                f"the classes of {source} are not those that {run.path} was trained on: label {number} is {before!r} "
                f"in the run, {after!r} now",
                "give a list whose labels are the run's numbers; or start a new run from its weights: --from",
            )
    return max(known, list(now or []), key=len) or None
