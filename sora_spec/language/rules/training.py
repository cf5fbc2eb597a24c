"""Training and export: batch arithmetic, warm-up, and the range of shapes of an exported model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sora_spec.language.facts import is_trainable
from sora_spec.language.rules.grid import MAX_TOKENS, fits_vae, frame_rule, frames_around
from sora_spec.language.rules.problem import At, Problem, counted, multiples_around
from sora_spec.language.shapes import frame_unit, latent_frames

if TYPE_CHECKING:
    from sora_spec.language.schema.spec import Spec


def batch_adds_up(spec: Spec) -> Iterator[Problem]:
    """E322."""
    batch, micro, accumulation = spec.train.batch, spec.train.micro_batch, spec.train.accumulation
    parallel = spec.parallel
    # The ranks of a sequence group work on the same clips.
    ranks = parallel.shard * parallel.replicate
    if micro is not None and micro * ranks * accumulation != batch:
        product = micro * ranks * accumulation
        yield Problem(
            "E322",
            f"the batch is {batch}, but micro_batch {micro} × {ranks} ranks × accumulation {accumulation} is {product}",
            At("train.batch", f"must be {product}"),
            (At("train.micro_batch", f"{micro} × {ranks} × {accumulation} = {product}"),),
            f"Set `train.batch: {product}`, or remove `micro_batch` to have it worked out.",
        )
    if micro is None and batch % (ranks * accumulation):
        share = ranks * accumulation
        yield Problem(
            "E322",
            f"a batch of {batch} cannot be shared by {ranks} ranks × accumulation {accumulation}",
            At("train.batch", f"{batch} / {share} = {batch / share:.2f}"),
            help=f"Use a batch of {multiples_around(batch, share)}.",
        )


def warmup_ends(spec: Spec) -> Iterator[Problem]:
    """E323."""
    stages = [("train", spec.train.warmup, spec.train.steps)]
    if is_trainable(spec.vae):
        stages.append(("vae.training", spec.vae.training.warmup, spec.vae.training.steps))
    for section, warmup, steps in stages:
        if warmup > steps:
            yield Problem(
                "E323",
                f"the warm-up takes {warmup} steps, but training ends after {steps}",
                At(f"{section}.warmup", f"{warmup} steps"),
                (At(f"{section}.steps", f"{steps} steps"),),
                f"Use up to {steps} steps of warm-up.",
            )


def export_ranges_are_ordered(spec: Spec) -> Iterator[Problem]:
    """E324, the order of both ranges."""
    for name, limits in (("batch", spec.export.batch), ("frames", spec.export.frames)):
        if limits is not None and limits[0] > limits[1]:
            yield Problem(
                "E324",
                f"`export.{name}` runs from {limits[0]} to {limits[1]}, backwards",
                At(f"export.{name}", "smallest first"),
                help=f"Write `{name}: [{limits[1]}, {limits[0]}]`.",
            )


def export_frames_fit(spec: Spec) -> Iterator[Problem]:
    """E324, the frames: every end fits the VAE, and the clip lies inside."""
    limits = spec.export.frames
    if limits is None:
        return
    for index, frames in enumerate(limits):
        unit = frame_unit(spec)
        if not fits_vae(spec, frames) or latent_frames(spec, frames) % unit:
            what = "tokens" if unit == spec.patch.time else "windows"
            rule = frame_rule(spec) + (f" in {what} of {unit} latent frames" if unit > 1 else "")
            yield Problem(
                "E324",
                f"an exported clip of {counted(frames, 'frame')} does not fit the VAE, which takes {rule}",
                At(f"export.frames.{index}", counted(frames, "frame")),
                (At("vae.compression.time", f"time compression {spec.vae.compression.time}"),),
                f"Use {frames_around(spec, frames)}.",
            )
    low, high = limits
    if low <= high and not low <= spec.clip.frames <= high:
        yield Problem(
            "E324",
            f"the clip has {counted(spec.clip.frames, 'frame')}, outside the exported range of {low} to {high}",
            At("export.frames", f"{low} to {high} frames"),
            (At("clip.frames", counted(spec.clip.frames, "frame")),),
            f"Widen it: `frames: [{min(low, spec.clip.frames)}, {max(high, spec.clip.frames)}]`.",
        )


def export_is_bounded(spec: Spec) -> Iterator[Problem]:
    """E327, the part about the longest exported clip."""
    if spec.export.frames is None:
        return
    frames, space = max(spec.export.frames), spec.vae.compression.space * spec.patch.space
    tokens = frames // spec.vae.compression.time // spec.patch.time
    tokens *= (spec.clip.height // space) * (spec.clip.width // space)
    if tokens > MAX_TOKENS:
        yield Problem(
            "E327",
            f"an exported clip of {frames} frames has {tokens:,} tokens, above the limit of {MAX_TOKENS:,}",
            At("export.frames", f"{frames} frames"),
            help="Export shorter clips.",
        )


def _images_of_one_frame(spec: Spec) -> Iterator[Problem]:
    """W302 where clips are images: every file holds one, and no picture is shown twice."""
    frames = [spec.clip.frames]
    if is_trainable(spec.vae):
        frames.append(spec.vae.training.frames or 1)
    if max(frames) > 1:
        return
    for word, value in (("short", "loop"), ("stills", "repeat")):
        if getattr(spec.train, word) == value:
            yield Problem(
                "W302",
                f"`train.{word}: {value}` changes nothing: clips have one frame",
                At(f"train.{word}", "nothing to repeat"),
                (At("clip.frames", "one frame"),),
                "Remove it.",
                severity="warning",
            )


def switches_switch(spec: Spec) -> Iterator[Problem]:
    """W302."""
    parallel, train = spec.parallel, spec.train
    ranks = parallel.shard * parallel.sequence * parallel.replicate
    if not parallel.reshard and ranks == 1 and train.precision == "fp32" and not parallel.offload:
        yield Problem(
            "W302",
            "`parallel.reshard: false` changes nothing: on one rank in fp32 no weights are gathered",
            At("parallel.reshard", "nothing to keep"),
            (At("train.precision", "fp32"), At("parallel.shard", "one rank")),
            "Remove it.",
            severity="warning",
        )
    if train.clip_grad_from and train.clip_grad is None:
        yield Problem(
            "W302",
            f"`train.clip_grad_from: {train.clip_grad_from}` changes nothing: gradients are not clipped",
            At("train.clip_grad_from", "nothing begins here"),
            (At("train.clip_grad", "no clipping"),),
            "Remove it, or give `train.clip_grad` a norm such as 1.0.",
            severity="warning",
        )
    yield from _images_of_one_frame(spec)
    averaged = train.ema > 0
    if is_trainable(spec.vae):
        averaged = averaged or spec.vae.training.ema > 0
    if train.ema_device == "cpu" and not averaged:
        yield Problem(
            "W302",
            "`train.ema_device: cpu` changes nothing: with a decay of 0 there is no average",
            At("train.ema_device", "nothing to keep there"),
            (At("train.ema", "no average"),),
            "Remove it, or give `train.ema` a decay such as 0.9999.",
            severity="warning",
        )


RULES = (
    batch_adds_up,
    warmup_ends,
    export_ranges_are_ordered,
    export_frames_fit,
    export_is_bounded,
    switches_switch,
)
