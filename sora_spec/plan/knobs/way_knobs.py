"""Knobs of the way it runs: precision, kernels, recomputation, sharing among ranks, what is kept where."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sora_spec.language.facts import temporal_facts, vae_facts
from sora_spec.plan.job import Question, RmsNorm, has_rms_norm
from sora_spec.plan.knobs.field_knobs import field_at, field_knob, help_at, kinds_at
from sora_spec.plan.knobs.knob import (
    Knob,
    Setting,
    Situation,
    generates,
    on_cuda,
    runs_network,
    trains,
    trains_denoiser,
)
from sora_spec.recipe.sampling import frames_per_decode

if TYPE_CHECKING:
    from sora_spec.graph.eager.ops.attention import Kernel


def _precision_path(at: Situation) -> str:
    if at.job.mode == "generate":
        return "export.precision"
    return "vae.training.precision" if at.job.stage == "vae" else "train.precision"


_KERNELS: tuple[Kernel, ...] = ("flash", "efficient", "math")


def _attention_settings(at: Situation) -> list[Setting]:
    kernels = _kernels(at)
    found = [Setting("auto", replace(at.question, attention=None))]
    return found + [Setting(name, replace(at.question, attention=name)) for name in kernels]


def _temporal_settings(at: Situation) -> list[Setting]:
    found = [Setting("auto", replace(at.question, temporal_attention=None))]
    return found + [Setting(name, replace(at.question, temporal_attention=name)) for name in _kernels(at)]


def _kernels(at: Situation) -> list[Kernel]:
    """Those that run here: FlashAttention takes 16-bit types and narrow heads, and not the VAE's."""
    flash = at.job.takes_flash and not (at.job.mode == "train" and at.job.stage == "vae")
    return [name for name in _KERNELS if flash or name != "flash"]


def _rms_norm_settings(at: Situation) -> list[Setting]:
    found = [Setting("auto", replace(at.question, rms_norm=None))]
    ways: tuple[RmsNorm, ...] = ("fused", "composite") if on_cuda(at) else ("composite",)
    return found + [Setting(name, replace(at.question, rms_norm=name)) for name in ways]


def _placement_settings(at: Situation) -> list[Setting]:
    resident = replace(at.question, placement="resident")
    resident = resident.having("export.offload", "false") if at.spec.export.offload else resident
    alone = at.question if at.job.offloads else replace(at.question.without("export.offload"), placement="sequential")
    return [Setting("all resident", resident), Setting("one part at a time", alone)]


def _tf32_settings(at: Situation) -> list[Setting]:
    off = replace(at.question, tf32=False)
    off = off.having("train.tf32", "false") if at.job.spec.train.tf32 else off
    on = at.question if at.job.allows_tf32 else replace(at.question, tf32=True)
    return [Setting("off", off), Setting("on", on)]


def _layout(at: Situation, shard: int, sequence: int, replicate: int) -> Question:
    """Ranks laid out anew; their number stays."""
    changed = at.question.on(at.job.count, at.job)
    for path, value in (("shard", shard), ("sequence", sequence), ("replicate", replicate)):
        changed = changed.having(f"parallel.{path}", str(value))
    return changed


def _sharding_words(shard: int, replicate: int) -> str:
    return f"{shard} × {replicate} copies" if replicate > 1 else f"{shard}"


def _sharding_settings(at: Situation) -> list[Setting]:
    parallel = at.job.spec.parallel
    groups = parallel.shard * parallel.replicate
    return [
        Setting(_sharding_words(n, groups // n), _layout(at, n, parallel.sequence, groups // n), n)
        for n in range(1, groups + 1)
        if groups % n == 0
    ]


def _sequence_settings(at: Situation) -> list[Setting]:
    """Sequence groups that divide ranks, heads and tokens; the rest of the ranks shards."""
    from sora_spec.language.shapes import derive_shapes

    spec, ranks = at.job.spec, at.job.ranks
    heads = spec.backbone.heads if spec.backbone.kind == "transformer" else 1
    tokens = derive_shapes(spec).tokens
    fits = [n for n in range(1, ranks + 1) if ranks % n == 0 and heads % n == 0 and tokens % n == 0]
    found = list[Setting]()
    for n in fits:
        replicate = spec.parallel.replicate if (ranks // n) % spec.parallel.replicate == 0 else 1
        found.append(Setting(str(n), _layout(at, ranks // n // replicate, n, replicate), n))
    return found


def _ema_path(at: Situation) -> str:
    return "vae.training.ema" if at.job.stage == "vae" else "train.ema"


def _ema_now(at: Situation) -> float:
    return at.job.vae_training.ema if at.job.stage == "vae" else at.spec.train.ema


def _ema_settings(at: Situation) -> list[Setting]:
    decay = _ema_now(at) or 0.9999
    path = _ema_path(at)
    off = Setting("off", at.question.having(path, "0"))
    if at.job.stage == "vae" or field_at(at.spec, "train.ema_device") is None:
        return [off, Setting("on", at.question.having(path, f"{decay:g}"))]
    kept = at.question.having(path, f"{decay:g}")
    return [
        off,
        Setting("in host memory", kept.having("train.ema_device", "cpu")),
        Setting("on the device", kept.having("train.ema_device", "device")),
    ]


def _ema_shown(at: Situation) -> str:
    if not _ema_now(at):
        return "off"
    if at.job.stage == "vae" or field_at(at.spec, "train.ema_device") is None:
        return "on"
    train: Any = at.spec.train
    return "in host memory" if train.ema_device == "cpu" else "on the device"


def _recompute_shown(at: Situation) -> str:
    recompute = cast("Any", at.spec.train.recompute)
    if recompute.kind == "none":
        return "nothing"
    if recompute.kind != "blocks":
        return str(recompute.kind)
    return "every block" if recompute.every == 1 else f"1 block in {recompute.every}"


def _recompute_settings(at: Situation) -> list[Setting]:
    ask = partial(at.question.having, "train.recompute")
    found = [Setting("nothing", ask("{kind: none}"))]
    kinds = kinds_at(at.spec, "train.recompute")
    found += [Setting(kind, ask(f"{{kind: {kind}}}")) for kind in kinds if kind not in ("none", "blocks")]
    return [
        *found,
        Setting("1 block in 4", ask("{kind: blocks, every: 4}")),
        Setting("1 block in 2", ask("{kind: blocks, every: 2}")),
        Setting("every block", ask("{kind: blocks}")),
    ]


def _precision_knob() -> Knob:
    def settings(at: Situation) -> list[Setting]:
        path = _precision_path(at)
        names = (field_at(at.spec, path) or {}).get("enum", ("fp32", "bf16"))
        return [Setting(name, at.question.having(path, name)) for name in names]

    def shown(at: Situation) -> str:
        return at.spec.export.precision if at.job.mode == "generate" else at.job.precision

    return Knob("precision", "precision", help_at("train.precision"), shown, settings)


def _decode_settings(at: Situation) -> list[Setting]:
    """Powers of two up to the clip, and what runs: multiples of the patch."""
    frames, unit = at.spec.clip.frames, at.spec.patch.time
    powers = {2**power for power in range(10) if 2**power <= frames and 2**power % unit == 0}
    counts = sorted({frames_per_decode(at.spec, frames), *powers})
    return [Setting(str(n), at.question.having("export.decode_frames", str(n)), n) for n in counts]


WAY_KNOBS: tuple[Knob, ...] = (
    _precision_knob(),
    Knob(
        *("attention", "attention", "The attention kernel; `auto` is the one that PyTorch picks."),
        shown=lambda at: at.question.attention or "auto",
        settings=_attention_settings,
        applies=on_cuda,
    ),
    Knob(
        *("temporal_attention", "across frames", "The attention kernel across frames; `auto` is that across space."),
        shown=lambda at: at.question.temporal_attention or "auto",
        settings=_temporal_settings,
        applies=lambda at: on_cuda(at) and runs_network(at) and temporal_facts(at.spec.temporal).across_frames,
    ),
    Knob(
        *("rms_norm", "RMS norm", "In one kernel (`fused`) or written out (`composite`); `auto` is PyTorch's way."),
        shown=lambda at: at.question.rms_norm or "auto",
        settings=_rms_norm_settings,
        applies=lambda at: on_cuda(at) and runs_network(at) and has_rms_norm(at.spec),
    ),
    Knob(
        *("recompute", "recompute", help_at("train.recompute")),
        shown=_recompute_shown,
        settings=_recompute_settings,
        applies=trains_denoiser,
    ),
    Knob(
        *("shard", "shard over", help_at("parallel.shard")),
        shown=lambda at: _sharding_words(at.job.spec.parallel.shard, at.job.spec.parallel.replicate),
        settings=_sharding_settings,
        place=lambda at: at.job.spec.parallel.shard,
        applies=lambda at: trains(at) and at.job.ranks > 1,
    ),
    field_knob(
        "parallel.reshard",
        "ZeRO",
        {"true": "3", "false": "2"},
        lambda at: trains(at) and at.job.spec.parallel.shard > 1,
    ),
    Knob(
        *("sequence", "sequence parallel", help_at("parallel.sequence")),
        shown=lambda at: str(at.job.spec.parallel.sequence),
        settings=_sequence_settings,
        place=lambda at: at.job.spec.parallel.sequence,
        applies=lambda at: trains_denoiser(at) and at.job.ranks > 1,
    ),
    Knob("ema", "EMA", help_at("train.ema"), _ema_shown, _ema_settings, applies=trains),
    field_knob("parallel.offload", "offload", {"true": "to host", "false": "no"}, trains),
    Knob(
        *("placement", "parts", "All parts in device memory at once, or one at a time."),
        shown=lambda at: "one part at a time" if at.job.offloads else "all resident",
        settings=_placement_settings,
        applies=generates,
    ),
    Knob(
        *("decode_frames", "frames a decode", help_at("export.decode_frames")),
        shown=lambda at: str(frames_per_decode(at.spec, at.spec.clip.frames)),
        settings=_decode_settings,
        place=lambda at: frames_per_decode(at.spec, at.spec.clip.frames),
        applies=lambda at: generates(at) and at.job.has_vae and vae_facts(at.spec.vae).per_frame,
    ),
    field_knob(
        "vae.tiling",
        "VAE tiles",
        {"{kind: none}": "no", "{kind: spatial}": "in space"},
        lambda at: not (trains(at) and at.job.stage == "vae"),
    ),
    field_knob(
        "vae.streaming",
        "VAE streaming",
        {"true": "yes", "false": "no"},
        lambda at: not (trains(at) and at.job.stage == "vae"),
    ),
    Knob(
        *("tf32", "TF32", "Whether fp32 matrix products may use TF32, which PyTorch's default forbids."),
        shown=lambda at: "on" if at.job.allows_tf32 else "off",
        settings=_tf32_settings,
        applies=lambda at: on_cuda(at) and at.job.precision == "fp32",
    ),
)
