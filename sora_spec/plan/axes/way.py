"""Axes of the way it runs: precision, kernels, recomputation, sharing among ranks, what is kept where."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from sora_spec.language.facts import can_stream, is_trainable, temporal_facts, vae_facts
from sora_spec.language.fields import field_at, kinds_at
from sora_spec.plan.axes.axis import (
    Axis,
    Change,
    Ease,
    field_axis,
    generates,
    halves,
    on_cuda,
    put,
    trains,
    trains_denoiser,
    trains_vae,
    value_at,
)
from sora_spec.plan.job import KERNELS, RMS_NORMS, has_rms_norm
from sora_spec.plan.memory.train_phases import LATENTS
from sora_spec.plan.planner import make_plan
from sora_spec.recipe.sampling import frames_per_decode

if TYPE_CHECKING:
    from sora_spec.plan.job import Job

TILES = (512, 256, 128)
"""Sides of tiles that are tried, in pixels."""
_VAE_PHASES = ("encode", "decode", "sample grid: decode", LATENTS)


# Precision and kernels


def _precision_path(job: Job) -> str:
    if generates(job):
        return "export.precision"
    return "vae.training.precision" if job.stage == "vae" else "train.precision"


def _bf16(job: Job) -> list[Change]:
    there = job.precision == "fp32" and on_cuda(job)
    return [Change({_precision_path(job): "bf16"})] if there else []


def _option_axis(key: str, label: str, about: str, values: Callable[[Job], list[Any]], **rest: Any) -> Axis:
    """An axis of an option alone, which PyTorch decides where it is left out."""
    return Axis(
        *(key, label, f"{about}; `auto` is {rest.pop('auto')}."),
        own=lambda job: getattr(job, key),
        usual=lambda job: [None, *values(job)],
        change=lambda _, value: Change(options={key: value}),
        words=lambda _, value: value or "auto",
        **rest,
    )


def _kernels(job: Job) -> list[str]:
    """Those that run here: FlashAttention takes 16-bit types and narrow heads, and not the VAE's."""
    return [name for name in KERNELS if name != "flash" or (job.takes_flash and not trains_vae(job))]


def _switched(key: str, path: str, off: Any, on: Any, job: Job, value: bool) -> Change:
    """An option that a value of the spec says as well."""
    said = value_at(job, path)
    if not value:
        return Change({path: False} if said else {}, {key: off})
    return Change() if said or getattr(job, key) == on else Change(options={key: on}, dropped=(path,))


# Recomputation


def _recompute_words(_: Job, value: Any) -> str:
    if value["kind"] != "blocks":
        return "nothing" if value["kind"] == "none" else value["kind"]
    every = value.get("every", 1)
    return "every block" if every == 1 else f"1 block in {every}"


def _blocks(every: int) -> dict[str, Any]:
    return {"kind": "blocks", "every": every} if every > 1 else {"kind": "blocks"}


def _own_recompute(job: Job) -> dict[str, Any]:
    recompute = job.spec.train.recompute
    return _blocks(recompute.every) if recompute.kind == "blocks" else {"kind": recompute.kind}


def _usual_recompute(job: Job) -> list[dict[str, Any]]:
    others = [kind for kind in kinds_at(job.spec, "train.recompute") if kind not in ("none", "blocks")]
    return [*({"kind": kind} for kind in ("none", *others)), _blocks(4), _blocks(2), _blocks(1)]


def _more_recompute(job: Job) -> Ease | None:
    recompute = job.spec.train.recompute
    if not trains_denoiser(job):
        return None
    none, more = recompute.kind == "none", put("train.recompute")
    settings = [("recompute every second block", more(job, _blocks(2)))] if none else []
    settings += (
        [("recompute every block", more(job, _blocks(1)))] if recompute.kind == "none" or recompute.every > 1 else []
    )
    return Ease(2, 1.1, settings)


def _free_recompute(job: Job) -> list[Change]:
    """From none to every block, the job's own among them."""
    if not trains_denoiser(job):
        return []
    every = sorted({1, 2, _own_recompute(job).get("every", 1)}, reverse=True)
    return [Change({"train.recompute": value}) for value in ({"kind": "none"}, *map(_blocks, every))]


# Ranks


def _laid_out(job: Job, shard: int, sequence: int, replicate: int) -> Change:
    """Ranks laid out anew; their number stays."""
    sides = {"parallel.shard": shard, "parallel.sequence": sequence, "parallel.replicate": replicate}
    return Change(sides, {"count": job.count})


def _sharded(job: Job, shard: int) -> Change:
    return _laid_out(job, shard, job.spec.parallel.sequence, _groups(job) // shard)


def _groups(job: Job) -> int:
    return job.spec.parallel.shard * job.spec.parallel.replicate


def _shard_words(job: Job, shard: int) -> str:
    replicate = _groups(job) // shard
    return f"{shard} × {replicate} copies" if replicate > 1 else f"{shard}"


def _more_sharding(job: Job) -> Ease | None:
    """Gathered weights freed early (ZeRO-3 in place of ZeRO-2), and shards in place of replicas (in place of DDP)."""
    parallel, settings = job.spec.parallel, list[tuple[str, Change]]()
    freed = {"parallel.reshard": True}
    if not parallel.reshard and job.sharded and trains_denoiser(job):
        settings.append(("free a block's weights after its forward pass", Change(freed)))
    if parallel.replicate > 1:
        sides = {"parallel.shard": _groups(job), "parallel.replicate": 1}
        settings.append((f"shard over all {parallel.ranks} ranks", Change({**sides, **freed})))
    return Ease(7, 1.0, settings) if trains(job) else None


def _free_layouts(job: Job) -> list[Change]:
    """A sequence group stays as it is: it decides how a clip is cut; and so do the ranks of a VAE's training, for which
    `parallel` is not meant in the first place."""
    groups, parallel, found = job.groups, job.spec.parallel, list[Change]()
    shards = [shard for shard in range(1, groups + 1) if groups % shard == 0 and trains_denoiser(job)]
    for shard, offload in product(shards, {False, parallel.offload}):
        sides = {"parallel.shard": shard, "parallel.replicate": groups // shard}
        if any(path in job.typed and value_at(job, path) != side for path, side in sides.items()):
            continue
        for reshard in (True, False) if shard > 1 else (parallel.reshard,):
            found.append(Change({**sides, "parallel.reshard": reshard, "parallel.offload": offload}))
    return found


def _usual_sequences(job: Job) -> list[int]:
    """Sequence groups that divide ranks, heads and tokens; the rest of the ranks shards."""
    from sora_spec.language.shapes import derive_shapes

    backbone, tokens = job.spec.backbone, derive_shapes(job.spec).tokens
    heads = backbone.heads if backbone.kind == "transformer" else 1
    return [n for n in range(1, job.ranks + 1) if not (job.ranks % n or heads % n or tokens % n)]


def _in_sequence(job: Job, sequence: int) -> Change:
    rest, replicate = job.ranks // sequence, job.spec.parallel.replicate
    replicate = 1 if rest % replicate else replicate
    return _laid_out(job, rest // replicate, sequence, replicate)


# What is kept where


def _ema_at(job: Job) -> tuple[str, float]:
    if job.stage == "vae":
        return "vae.training.ema", job.vae_training.ema
    return "train.ema", job.spec.train.ema


def _ema_places(job: Job) -> list[str]:
    movable = job.stage != "vae" and field_at(job.spec, "train.ema_device") is not None
    return ["off", *(["in host memory", "on the device"] if movable else ["on"])]


def _own_ema(job: Job) -> str:
    off, *places = _ema_places(job)
    return places[job.spec.train.ema_device != "cpu" and len(places) > 1] if _ema_at(job)[1] else off


def _ema_change(job: Job, place: str) -> Change:
    path, decay = _ema_at(job)
    values: dict[str, Any] = {path: 0 if place == "off" else decay or 0.9999}
    if place.endswith(("memory", "device")):
        values["train.ema_device"] = "cpu" if place == "in host memory" else "device"
    return Change(values)


def _to_host(job: Job) -> Ease | None:
    """The moving average in host memory, or all that is not needed to compute."""
    settings = list[tuple[str, Change]]()
    if on_cuda(job) and _ema_at(job)[1] > 0 and not job.average_on_host:
        settings.append(("the average in host memory", Change({"train.ema_device": "cpu"})))
    if on_cuda(job) and not job.states_on_host:
        settings.append(("weights and optimiser states in host memory", Change({"parallel.offload": True})))
    return Ease(8, 1.4, settings) if trains(job) else None


def _one_part(job: Job) -> Ease | None:
    """Parts that do not run wait in host memory; a CPU has no other."""
    if not generates(job) or job.offloads or job.device.kind == "cpu":
        return None
    return Ease(3, 1.2, [("one part on the device at a time", Change({"export.offload": True}))])


# The VAE in pieces


def _vae_is_too_large(job: Job) -> bool:
    """Whether it is the VAE that does not fit: other phases gain nothing by its pieces."""
    there = job.device.memory_bytes
    return any(phase.device.likely > there for phase in make_plan(job).phases if phase.name in _VAE_PHASES)


def _decoded(job: Job) -> int:
    return frames_per_decode(job.spec, job.spec.clip.frames)


def _usual_decodes(job: Job) -> list[int]:
    """Powers of two up to the clip, and what runs: multiples of the patch."""
    frames, unit = job.spec.clip.frames, job.spec.patch.time
    powers = {2**power for power in range(10) if 2**power <= frames and 2**power % unit == 0}
    return sorted({_decoded(job), *powers})


def _fewer_decoded(job: Job) -> Ease | None:
    """Fewer frames in one pass of a decoder that sees each on its own: the same values in as much time."""
    if not generates(job) or not vae_facts(job.spec.vae).per_frame or not _vae_is_too_large(job):
        return None
    have, put_frames = _decoded(job), put("export.decode_frames")
    fewer = [n for n in halves(have) if n % job.spec.patch.time == 0]
    return Ease(5, 1.02, [(f"the VAE on {n} frames at a time instead of {have}", put_frames(job, n)) for n in fewer])


def _streamed(job: Job) -> Ease | None:
    if not can_stream(job.spec.vae) or job.spec.vae.streaming or not _vae_is_too_large(job):
        return None
    return Ease(4, 1.05, [("the VAE on one latent frame at a time", Change({"vae.streaming": True}))])


def _smaller_tiles(job: Job) -> Ease | None:
    """Tiles of a side below the present one, overlapping by a quarter."""
    vae, clip, settings = job.spec.vae, job.spec.clip, list[tuple[str, Change]]()
    if not is_trainable(vae) or not _vae_is_too_large(job):
        return None
    space = vae.compression.space
    now = vae.tiling.tile if vae.tiling.kind == "spatial" else max(clip.height, clip.width)
    for side in TILES:
        if side < now and side % space == 0:
            tiling = {"kind": "spatial", "tile": side, "overlap": side // 4 // space * space}
            settings.append((f"the VAE in tiles of {side} pixels", Change({"vae.tiling": tiling})))
    return Ease(6, 1.3, settings)


WAY_AXES = (
    Axis(
        *("precision", "precision", "train.precision"),
        own=lambda job: value_at(job, _precision_path(job)),
        usual=lambda job: (field_at(job.spec, _precision_path(job)) or {}).get("enum", ["fp32", "bf16"]),
        change=lambda job, name: Change({_precision_path(job): name}),
        ease=lambda job: (
            Ease(2, 1.1, [("bf16 weights", change) for change in _bf16(job)])
            if generates(job)
            else Ease(3, 1.2, [("bf16 arithmetic", change) for change in _bf16(job)])
        ),
        free=lambda job: [Change(), *_bf16(job)],
    ),
    _option_axis(
        *("attention", "attention", "The attention kernel", _kernels),
        auto="the one that PyTorch picks",
        applies=on_cuda,
    ),
    _option_axis(
        *("temporal_attention", "across frames", "The attention kernel across frames", _kernels),
        auto="that across space",
        applies=lambda job: on_cuda(job) and not trains_vae(job) and temporal_facts(job.spec.temporal).across_frames,
    ),
    _option_axis(
        *("rms_norm", "RMS norm", "In one kernel (`fused`) or written out (`composite`)"),
        lambda job: [name for name in RMS_NORMS if on_cuda(job) or name != "fused"],
        auto="PyTorch's way",
        applies=lambda job: on_cuda(job) and not trains_vae(job) and has_rms_norm(job.spec),
    ),
    Axis(
        *("recompute", "recompute", "train.recompute"),
        own=_own_recompute,
        usual=_usual_recompute,
        change=put("train.recompute"),
        words=_recompute_words,
        applies=trains_denoiser,
        ease=_more_recompute,
        free=_free_recompute,
        ladder=True,
    ),
    Axis(
        *("shard", "shard over", "parallel.shard"),
        own=lambda job: job.spec.parallel.shard,
        usual=lambda job: [n for n in range(1, _groups(job) + 1) if _groups(job) % n == 0],
        change=_sharded,
        words=_shard_words,
        scale=float,
        applies=lambda job: trains(job) and job.ranks > 1,
        ease=_more_sharding,
        free=_free_layouts,
    ),
    field_axis(
        *("parallel.reshard", "ZeRO", {"true": "3", "false": "2"}),
        lambda job: trains(job) and job.spec.parallel.shard > 1,
    ),
    Axis(
        *("sequence", "sequence parallel", "parallel.sequence"),
        own=lambda job: job.spec.parallel.sequence,
        usual=_usual_sequences,
        change=_in_sequence,
        scale=float,
        applies=lambda job: trains_denoiser(job) and job.ranks > 1,
    ),
    Axis(
        *("ema", "EMA", "train.ema"),
        own=_own_ema,
        usual=_ema_places,
        change=_ema_change,
        applies=trains,
    ),
    field_axis("parallel.offload", "offload", {"true": "to host", "false": "no"}, trains, ease=_to_host),
    Axis(
        *("placement", "parts", "All parts in device memory at once, or one at a time."),
        own=lambda job: job.offloads,
        usual=lambda _: [False, True],
        change=partial(_switched, "placement", "export.offload", "resident", "sequential"),
        words=lambda _, alone: "one part at a time" if alone else "all resident",
        applies=generates,
        ease=_one_part,
    ),
    Axis(
        *("decode_frames", "frames a decode", "export.decode_frames"),
        own=_decoded,
        usual=_usual_decodes,
        change=put("export.decode_frames"),
        scale=float,
        applies=lambda job: generates(job) and job.has_vae and vae_facts(job.spec.vae).per_frame,
        ease=_fewer_decoded,
    ),
    field_axis(
        *("vae.tiling", "VAE tiles", {"none": "no", "spatial": "in space"}),
        lambda job: not trains_vae(job),
        ease=_smaller_tiles,
    ),
    field_axis(
        *("vae.streaming", "VAE streaming", {"true": "yes", "false": "no"}),
        lambda job: not trains_vae(job),
        ease=_streamed,
    ),
    Axis(
        *("tf32", "TF32", "Whether fp32 matrix products may use TF32, which PyTorch's default forbids."),
        own=lambda job: job.allows_tf32,
        usual=lambda _: [False, True],
        change=partial(_switched, "tf32", "train.tf32", False, True),
        words=lambda _, on: "on" if on else "off",
        applies=lambda job: on_cuda(job) and job.precision == "fp32",
    ),
)
