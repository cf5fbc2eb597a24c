"""How many devices a job has, and how its ranks share the weights: what a person has said of it wins, or is refused.

What was said as an argument (`parallel.shard=1`, `hardware.count=4`) is *typed*. `--count` lays the ranks of a file out
anew, and leaves what was typed as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from sora_spec.errors import UserError
from sora_spec.language.facts import is_trainable
from sora_spec.language.loading import Checked, check
from sora_spec.language.yaml_tree import MapNode
from sora_spec.plan.devices.hardware import Device, find_device

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec
    from sora_spec.language.schema.training import Parallel
    from sora_spec.language.source import Document

SIDES = ("shard", "sequence", "replicate")
LAYOUT = tuple(f"parallel.{side}" for side in SIDES)
NOTHING: frozenset[str] = frozenset()


def typed_paths(document: Document) -> frozenset[str]:
    """Every value that an argument has given."""
    return NOTHING if document.root is None else frozenset(_typed(document.root, ""))


def _typed(node: MapNode, above: str) -> Iterator[str]:
    for key, entry in node.entries.items():
        inner = entry.node
        bare = isinstance(inner, MapNode) or inner.span.start == inner.span.end
        if (entry.key_span if bare else inner.span).text.origin == "argument":
            yield f"{above}{key}"
        if isinstance(inner, MapNode):
            yield from _typed(inner, f"{above}{key}.")


def checked_for(document: Document, count: int | None, elsewhere: bool = False) -> tuple[Checked, frozenset[str]]:
    """A document as it is planned on `count` devices, and what was typed. `elsewhere`: the device is not its own.

    Where a number of devices is asked for, it is that number that has to share the batch (`with_count` sees to it), and
    not the ranks that the file names.
    """
    typed = typed_paths(document)
    asked = count is not None or "hardware.count" in typed
    return check(document, (*(["E322"] if asked else []), *(["E330"] if elsewhere else []))), typed


def asked_device(spec: Spec, gpu: str, hardware: str | None, typed: Collection[str] = NOTHING) -> Device:
    """The device of `--gpu`, or the spec's.

    Raises UserError: there is no such device, or `--gpu` and an argument name two.
    """
    device = find_device(gpu or spec.hardware.gpu, hardware)
    if gpu and "hardware.gpu" in typed and find_device(spec.hardware.gpu, hardware).name != device.name:
        raise UserError(f"--gpu {gpu} and hardware.gpu={spec.hardware.gpu} name two devices", "leave one out")
    return device


def names_ranks(spec: Spec) -> bool:
    """Whether `parallel` says how many ranks there are."""
    written = "parallel" in spec.model_fields_set and not spec.parallel.model_fields_set.isdisjoint(SIDES)
    return written or spec.parallel.ranks > 1


def device_count(spec: Spec, count: int | None, trains: bool, typed: Collection[str] = NOTHING) -> int:
    """Devices of a job: `count`, or what was typed; else the ranks of `parallel`, else the machine's; a generation's 1.

    Raises UserError: two numbers were given.
    """
    named = spec.hardware.count if "hardware.count" in typed else None
    if count is not None and named is not None and count != named:
        raise UserError(f"--count {count} and hardware.count={named} give two numbers of devices", "leave one out")
    asked = count or named
    if asked is not None:
        return asked
    if not trains:
        return 1
    return spec.parallel.ranks if names_ranks(spec) else spec.hardware.count


def laid_out(parallel: Parallel, count: int, typed: Collection[str] = NOTHING) -> dict[str, int]:
    """Sides of the layout for `count` ranks. Typed ones stay; sequence and replicas of a file where they divide what is
    left; shards take the rest, or replicas where the shards were typed.

    Raises UserError: what was typed does not make that many ranks.
    """
    sides = {side: getattr(parallel, side) for side in SIDES}
    if parallel.ranks == count:
        return sides
    fixed = [side for side in SIDES if f"parallel.{side}" in typed]
    rest = count
    for side in fixed:
        if rest % sides[side]:
            raise _misfit(sides, fixed, count)
        rest //= sides[side]
    free = [side for side in SIDES if side not in fixed]
    taker = next((side for side in ("shard", "replicate") if side in free), None)
    if taker is None and rest != 1:
        raise _misfit(sides, fixed, count)
    kept = [side for side in free if side != taker]
    product = 1
    for side in kept:
        product *= sides[side]
    found = {side: sides[side] for side in fixed}
    if rest % product:
        product = 1
    found |= {side: sides[side] if product > 1 else 1 for side in kept}
    return found if taker is None else found | {taker: rest // product}


def _misfit(sides: dict[str, int], fixed: list[str], count: int) -> UserError:
    given = " ".join(f"parallel.{side}={sides[side]}" for side in fixed)
    product = 1
    for side in fixed:
        product *= sides[side]
    return UserError(
        f"{given} does not make {count} ranks",
        f"give a number of devices that is a multiple of {product}, or leave one of the two out",
    )


def with_count(spec: Spec, count: int, stage: str = "denoiser", typed: Collection[str] = NOTHING) -> Spec:
    """The spec on `count` ranks.

    Raises UserError: what was typed does not fit that many ranks, or the batch of the stage cannot be shared by them.
    """
    sides = laid_out(spec.parallel, count, typed)
    changed: dict[str, Any] = {}
    if any(getattr(spec.parallel, side) != value for side, value in sides.items()):
        changed["parallel"] = spec.parallel.model_copy(update=sides)
    groups = count // sides["sequence"]
    if stage == "denoiser":
        micro, written = _shared_batch(spec, groups, count), spec.train.micro_batch
        if written is not None and written != micro:
            if "train.micro_batch" in typed:
                raise _micro_misfit(spec, groups)
            changed["train"] = spec.train.model_copy(update={"micro_batch": micro})
    elif stage == "vae" and is_trainable(spec.vae):
        _check_vae_batch(spec.vae.training.batch, groups)
    return spec.model_copy(update=changed) if changed else spec


def _check_vae_batch(batch: int, ranks: int) -> None:
    if batch % ranks:
        more = max(ranks, batch // ranks * ranks)
        raise UserError(
            f"a batch of {batch} cannot be shared by {ranks} devices",
            f"give a batch that is a multiple of {ranks}: vae.training.batch={more}",
        )


def _shared_batch(spec: Spec, groups: int, count: int) -> int:
    """Clips of a pass when `groups` of the `count` devices share the batch."""
    batch, accumulation = spec.train.batch, spec.train.accumulation
    share = groups * accumulation
    if batch % share:
        raise UserError(
            f"a batch of {batch} cannot be shared by {count} devices × accumulation {accumulation}",
            f"give a batch that is a multiple of {share}: train.batch={max(share, batch // share * share)}",
        )
    return batch // share


def _micro_misfit(spec: Spec, groups: int) -> UserError:
    train = spec.train
    product = (train.micro_batch or 0) * groups * train.accumulation
    return UserError(
        f"the batch is {train.batch}, but train.micro_batch={train.micro_batch} × {groups} ranks × accumulation "
        f"{train.accumulation} is {product}",
        f"train.batch={product}, or leave train.micro_batch out to have it worked out",
    )
