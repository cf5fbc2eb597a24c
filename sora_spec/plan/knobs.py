"""What can be turned about a plan: for each knob its value in words, its settings from low to high, and typed values.

A setting is a whole `WhatIf`, so that turning a knob is asking another question. Knobs that only the language decides
(recomputation, sharding, tiling, …) read their settings from its JSON schema, and are not there where it has no such
field.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from sora_spec.errors import UserError
from sora_spec.grammar import language, resolve
from sora_spec.plan.changes import flow
from sora_spec.plan.clip_sizes import frame_counts, sizes, with_frames
from sora_spec.plan.hardware import device_names
from sora_spec.plan.job import Job, default_batch
from sora_spec.plan.whatif import Answer, WhatIf

if TYPE_CHECKING:
    from sora_spec.schema.spec import Spec

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
SIDES = (64, 96, 128, 160, 192, 224, 256, 320, 360, 384, 432, 480, 512, 576, 640, 720, 768, 1024, 1080, 1440, 2160)
SECONDS = (0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60)
RATES = (8, 10, 12, 15, 16, 24, 25, 30, 50, 60)


class Setting(NamedTuple):
    """One setting of a knob."""

    words: str
    whatif: WhatIf
    order: float = 0.0
    """Place on the scale of a knob of numbers; knobs of choices count them."""


@dataclass(frozen=True)
class Situation:
    """What a knob sees: the question, and the last spec and job that could be made of it."""

    whatif: WhatIf
    spec: Spec
    """As written, overrides included."""
    job: Job


@dataclass(frozen=True)
class Knob:
    """Something that can be turned."""

    key: str
    label: str
    help: str
    shown: Callable[[Situation], str]
    settings: Callable[[Situation], Sequence[Setting]]
    place: Callable[[Situation], float] | None = None
    """Where the present value stands on the scale; None for a knob of choices."""
    typed: Callable[[Situation, str], WhatIf] | None = None
    """The question for a typed value; raises UserError. None where only choices make sense."""
    applies: Callable[[Situation], bool] = lambda _: True
    """Whether it has an effect on the job."""

    def step(self, situation: Situation, way: Literal[-1, 1]) -> WhatIf | None:
        """The next setting up or down; None at the end."""
        settings = self.settings(situation)
        if not settings:
            return None
        if self.place is None:
            words = [setting.words for setting in settings]
            shown = self.shown(situation)
            index = words.index(shown) + way if shown in words else 0
            return settings[index].whatif if 0 <= index < len(settings) else None
        scale, here = [setting.order for setting in settings], self.place(situation)
        index = bisect_right(scale, here) if way > 0 else bisect_left(scale, here) - 1
        return settings[index].whatif if 0 <= index < len(settings) else None

    def enter(self, situation: Situation, text: str) -> WhatIf:
        """The question for a typed value.

        Raises:
            UserError: the knob cannot take it.
        """
        text = text.strip()
        for setting in self.settings(situation):
            if setting.words.lower() == text.lower():
                return setting.whatif
        if self.typed is None:
            choices = ", ".join(setting.words for setting in self.settings(situation))
            raise UserError(f"{self.label}: {text!r} is none of its settings", choices)
        return self.typed(situation, text)


def situation_of(answer: Answer) -> Situation | None:
    """What knobs see of an answer; None where there was no plan."""
    if answer.plan is None or answer.spec is None:
        return None
    return Situation(answer.whatif, answer.spec, answer.plan.job)


# What is done, and on what


def _trains_denoiser(at: Situation) -> bool:
    return at.job.mode == "train" and at.job.stage == "denoiser"


def _trains(at: Situation) -> bool:
    return at.job.mode == "train"


def _generates(at: Situation) -> bool:
    return at.job.mode == "generate"


def _on_cuda(at: Situation) -> bool:
    return at.job.device.kind == "cuda"


def _job_settings(at: Situation) -> list[Setting]:
    found = [Setting("train denoiser", replace(at.whatif, mode="train", stage="denoiser"))]
    if at.spec.vae.kind in ("image_kl", "causal3d"):
        found.append(Setting("train codec", replace(at.whatif, mode="train", stage="vae")))
    return [*found, Setting("generate", replace(at.whatif, mode="generate", stage="denoiser"))]


def _job_shown(at: Situation) -> str:
    if at.job.mode == "generate":
        return "generate"
    return "train codec" if at.job.stage == "vae" else "train denoiser"


def _gpu_settings(at: Situation) -> list[Setting]:
    names = device_names(at.whatif.hardware or None)
    return [Setting(name, replace(at.whatif, gpu=name)) for name in names]


def _count(at: Situation, count: int) -> WhatIf:
    """Other devices: how they share the weights is worked out anew."""
    return replace(at.whatif.without("parallel.shard"), count=count)


def _count_settings(at: Situation) -> list[Setting]:
    """Counts that can share the batch."""
    spec = at.spec
    fits = [n for n in COUNTS if at.job.mode == "generate" or spec.train.batch % (n * spec.train.accumulation) == 0]
    return [Setting(str(n), _count(at, n), n) for n in fits]


# Batches


def _batch_now(at: Situation) -> int:
    return at.job.generated if at.job.mode == "generate" else at.job.clips_per_step


def _batch(at: Situation, batch: int) -> WhatIf:
    if at.job.mode == "generate":
        return replace(at.whatif, batch=batch)
    if at.job.stage == "vae":
        return at.whatif.having("vae.training.batch", str(batch))
    changed = at.whatif.having("train.batch", str(batch))
    if at.spec.train.micro_batch is not None:
        changed = changed.having("train.micro_batch", str(max(1, batch // _share(at))))
    return changed


def _share(at: Situation) -> int:
    """Clips of a step come in multiples of this."""
    parallel = at.job.spec.parallel
    groups = parallel.shard * parallel.replicate
    return groups * at.job.accumulation if at.job.mode == "train" else 1


def _batch_settings(at: Situation) -> list[Setting]:
    share = max(_share(at), at.job.ranks)
    shared = sorted({n for n in BATCHES if n % share == 0} | {share * n for n in BATCHES if share * n <= 65_536})
    return [Setting(str(n), _batch(at, n), n) for n in shared]


def _passes(at: Situation, passes: int) -> WhatIf:
    changed = at.whatif.having("train.accumulation", str(passes))
    if at.spec.train.micro_batch is not None:
        micro = at.spec.train.batch * passes // max(1, _share(at) * passes * passes // at.job.accumulation)
        changed = changed.having("train.micro_batch", str(max(1, micro)))
    return changed


def _passes_settings(at: Situation) -> list[Setting]:
    per_rank = at.job.micro_batch * at.job.accumulation
    return [Setting(str(n), _passes(at, n), n) for n in range(1, min(per_rank, 1024) + 1) if per_rank % n == 0]


# The clip


def _size_shown(at: Situation) -> str:
    return f"{at.spec.clip.height}×{at.spec.clip.width}"


def _sized(at: Situation, size: tuple[int, int]) -> WhatIf:
    return at.whatif.having("clip.height", str(size[0])).having("clip.width", str(size[1]))


def _size_settings(at: Situation) -> list[Setting]:
    """Sizes of nearly the same aspect whose short side is near a usual one."""
    clip = at.spec.clip
    workable = sizes(at.spec, max(1.0, SIDES[-1] / min(clip.height, clip.width)))
    near = (min(workable, key=lambda size, side=side: abs(min(size) - side)) for side in SIDES if workable)
    return [Setting(f"{h}×{w}", _sized(at, (h, w)), h * w) for h, w in sorted(set(near), key=lambda s: s[0] * s[1])]


def _size_typed(at: Situation, text: str) -> WhatIf:
    both = re.fullmatch(r"(\d{1,5})\s*[x×X*, ]\s*(\d{1,5})", text)
    if both:
        return _sized(at, (int(both[1]), int(both[2])))
    short = re.fullmatch(r"(\d{1,5})\s*p?", text)
    if not short:
        raise UserError(f"{text!r} is no size", "height×width such as 480x848, or a short side such as 480p")
    clip, side = at.spec.clip, int(short[1])
    workable = sizes(at.spec, max(1.0, 1.2 * side / min(clip.height, clip.width)))
    if not workable:
        raise UserError(f"no size near {side} suits the codec and the patches")
    return _sized(at, min(workable, key=lambda size: abs(min(size) - side)))


def _length_shown(at: Situation) -> str:
    clip = at.spec.clip
    return f"{clip.frames} frames" if clip.frames != 1 else "1 frame"


def _length(at: Situation, frames: int) -> WhatIf:
    changed = at.whatif
    for path, value in with_frames(at.spec, frames).items():
        changed = changed.having(path, flow(value))
    return changed


def _workable_frames(at: Situation, most: float) -> list[int]:
    return frame_counts(at.spec, max(1, int(most)))


def _length_settings(at: Situation) -> list[Setting]:
    fps = at.spec.clip.fps
    workable = _workable_frames(at, SECONDS[-1] * fps)
    chosen = {min(workable, key=lambda n, wanted=s * fps: abs(n - wanted)) for s in SECONDS if workable}
    chosen |= set(workable[:1])
    return [Setting(f"{n} frames" if n != 1 else "1 frame", _length(at, n), n) for n in sorted(chosen)]


def _length_typed(at: Situation, text: str) -> WhatIf:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d{1,3})?)\s*(s|sec|seconds|f|frames?)?", text)
    if not found:
        raise UserError(f"{text!r} is no length", "frames such as 81, or seconds such as 5s")
    number, unit = float(found[1]), found[2] or ""
    if not unit.startswith("s"):
        return _length(at, int(number))
    wanted = number * at.spec.clip.fps
    workable = _workable_frames(at, 2 * wanted + 16)
    if not workable:
        raise UserError("the codec and the patches leave the length no choice")
    return _length(at, min(workable, key=lambda n: abs(n - wanted)))


def _rate_shown(at: Situation) -> str:
    return f"{at.spec.clip.fps:g}"


# How it runs


def _precision_path(at: Situation) -> str:
    if at.job.mode == "generate":
        return "export.precision"
    return "vae.training.precision" if at.job.stage == "vae" else "train.precision"


def _attention_settings(at: Situation) -> list[Setting]:
    found = [Setting("auto", replace(at.whatif, attention=None))]
    return found + [Setting(name, replace(at.whatif, attention=name)) for name in ("flash", "efficient", "math")]


def _placement_settings(at: Situation) -> list[Setting]:
    return [
        Setting("all resident", replace(at.whatif, placement="resident")),
        Setting("one part at a time", replace(at.whatif, placement="sequential")),
    ]


def _tf32_settings(at: Situation) -> list[Setting]:
    return [Setting("off", replace(at.whatif, tf32=False)), Setting("on", replace(at.whatif, tf32=True))]


def _layout(at: Situation, shard: int, sequence: int, replicate: int) -> WhatIf:
    """Ranks laid out anew; their number stays."""
    changed = replace(at.whatif, count=at.job.count)
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
    from sora_spec.shapes import derive_shapes

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
    off = Setting("off", at.whatif.having(path, "0"))
    if at.job.stage == "vae" or field_at(at.spec, "train.ema_device") is None:
        return [off, Setting("on", at.whatif.having(path, f"{decay:g}"))]
    kept = at.whatif.having(path, f"{decay:g}")
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
    ask = partial(at.whatif.having, "train.recompute")
    found = [Setting("nothing", ask("{kind: none}"))]
    kinds = kinds_at(at.spec, "train.recompute")
    found += [Setting(kind, ask(f"{{kind: {kind}}}")) for kind in kinds if kind not in ("none", "blocks")]
    return [
        *found,
        Setting("1 block in 4", ask("{kind: blocks, every: 4}")),
        Setting("1 block in 2", ask("{kind: blocks, every: 2}")),
        Setting("every block", ask("{kind: blocks}")),
    ]


# Fields of the language


def field_at(spec: Spec, path: str) -> dict[str, Any] | None:
    """JSON schema of a field, in the kinds that the spec has chosen; None where the language has no such field."""
    root = language()
    schema, value = root, cast("Any", spec)
    for segment in path.split("."):
        schema = _variant(schema, value)
        if segment not in schema.get("properties", {}):
            return None
        schema = schema["properties"][segment]
        value = getattr(value, segment, None)
    return schema


def _variant(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    root = language()
    schema = resolve(schema, root)
    if "anyOf" in schema:
        schema = resolve(schema["anyOf"][0], root)
    if "oneOf" in schema:
        schema = resolve({"$ref": schema["discriminator"]["mapping"].get(getattr(value, "kind", ""), "")}, root)
    return schema


def kinds_at(spec: Spec, path: str) -> list[str]:
    """Kinds of a section that has several."""
    schema = field_at(spec, path) or {}
    return list(schema.get("discriminator", {}).get("mapping", {}))


def help_at(path: str) -> str:
    """What the language says about a field: the text that editors show."""
    root = language()
    schema: dict[str, Any] = root
    for segment in path.split("."):
        schema = resolve(schema, root)
        variants = [schema] + [resolve(variant, root) for variant in schema.get("oneOf", ())]
        schema = next((v["properties"][segment] for v in variants if segment in v.get("properties", {})), {})
    return schema.get("description", "")


def _field_knob(
    path: str, label: str, words: dict[str, str], applies: Callable[[Situation], bool] = lambda _: True
) -> Knob:
    """A knob for a field whose settings the schema lists: a yes or no, a choice, or a kind."""

    def values(at: Situation) -> list[str]:
        schema = field_at(at.spec, path) or {}
        if schema.get("type") == "boolean":
            return ["false", "true"]
        return [str(value) for value in schema.get("enum", ())] or [
            f"{{kind: {kind}}}" for kind in kinds_at(at.spec, path)
        ]

    def settings(at: Situation) -> list[Setting]:
        return [Setting(words.get(value, _bare(value)), at.whatif.having(path, value)) for value in values(at)]

    def shown(at: Situation) -> str:
        value: Any = at.spec
        for segment in path.split("."):
            value = getattr(value, segment)
        text = f"{{kind: {value.kind}}}" if hasattr(value, "kind") else flow(value)
        return words.get(text, _bare(text))

    def there(at: Situation) -> bool:
        return field_at(at.spec, path) is not None and applies(at)

    return Knob(path.rpartition(".")[2], label, help_at(path), shown, settings, applies=there)


def _bare(value: str) -> str:
    return value.removeprefix("{kind: ").removesuffix("}")


def _number(low: int, high: int, make: Callable[[Situation, int], WhatIf]) -> Callable[[Situation, str], WhatIf]:
    """How a whole number is typed."""

    def typed(at: Situation, text: str) -> WhatIf:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise UserError(f"{text!r} is not a number from {low} to {high}")
        return make(at, int(text))

    return typed


def _rate_typed(at: Situation, text: str) -> WhatIf:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text) or not 0 < float(text) <= 1000:
        raise UserError(f"{text!r} is no frame rate", "frames a second, such as 16 or 23.976")
    return at.whatif.having("clip.fps", text)


def _precision_knob() -> Knob:
    def settings(at: Situation) -> list[Setting]:
        path = _precision_path(at)
        names = (field_at(at.spec, path) or {}).get("enum", ("fp32", "bf16"))
        return [Setting(name, at.whatif.having(path, name)) for name in names]

    def shown(at: Situation) -> str:
        return at.spec.export.precision if at.job.mode == "generate" else at.job.precision

    return Knob("precision", "precision", help_at("train.precision"), shown, settings)


KNOBS: tuple[Knob, ...] = (
    Knob("job", "job", "Train the denoiser or the codec, or generate clips.", _job_shown, _job_settings),
    Knob("gpu", "GPU", help_at("hardware.gpu"), lambda at: at.job.device.name, _gpu_settings),
    Knob(
        *("count", "GPUs", help_at("hardware.count")),
        shown=lambda at: str(at.job.count),
        settings=_count_settings,
        place=lambda at: at.job.count,
        typed=_number(1, 4096, _count),
    ),
    Knob(
        *("batch", "batch", "Clips of one optimiser step over all devices; in generation, clips at a time."),
        shown=lambda at: str(_batch_now(at)),
        settings=_batch_settings,
        place=_batch_now,
        typed=_number(1, 65_536, _batch),
    ),
    Knob(
        *("passes", "passes a step", help_at("train.accumulation")),
        shown=lambda at: str(at.job.accumulation),
        settings=_passes_settings,
        place=lambda at: at.job.accumulation,
        typed=_number(1, 4096, _passes),
        applies=_trains_denoiser,
    ),
    Knob(
        *("size", "size", "Height and width of the clip in pixels. Type 480x848, or 480p for the same aspect."),
        shown=_size_shown,
        settings=_size_settings,
        place=lambda at: at.spec.clip.height * at.spec.clip.width,
        typed=_size_typed,
    ),
    Knob(
        *("length", "length", "Frames of the clip. Type 81, or 5s for seconds at the clip's frame rate."),
        shown=_length_shown,
        settings=_length_settings,
        place=lambda at: at.spec.clip.frames,
        typed=_length_typed,
        applies=lambda at: at.spec.temporal.kind != "none",
    ),
    Knob(
        *("fps", "frames a second", help_at("clip.fps")),
        shown=_rate_shown,
        settings=lambda at: [Setting(f"{n}", at.whatif.having("clip.fps", str(n)), n) for n in RATES],
        place=lambda at: at.spec.clip.fps,
        typed=_rate_typed,
        applies=lambda at: at.spec.temporal.kind != "none",
    ),
    _precision_knob(),
    Knob(
        *("attention", "attention", "The attention kernel; `auto` is the one that PyTorch picks."),
        shown=lambda at: at.whatif.attention or "auto",
        settings=_attention_settings,
        applies=_on_cuda,
    ),
    Knob(
        *("recompute", "recompute", help_at("train.recompute")),
        shown=_recompute_shown,
        settings=_recompute_settings,
        applies=_trains_denoiser,
    ),
    Knob(
        *("shard", "shard over", help_at("parallel.shard")),
        shown=lambda at: _sharding_words(at.job.spec.parallel.shard, at.job.spec.parallel.replicate),
        settings=_sharding_settings,
        place=lambda at: at.job.spec.parallel.shard,
        applies=lambda at: _trains(at) and at.job.ranks > 1,
    ),
    _field_knob(
        "parallel.reshard",
        "ZeRO",
        {"true": "3", "false": "2"},
        lambda at: _trains(at) and at.job.spec.parallel.shard > 1,
    ),
    Knob(
        *("sequence", "sequence parallel", help_at("parallel.sequence")),
        shown=lambda at: str(at.job.spec.parallel.sequence),
        settings=_sequence_settings,
        place=lambda at: at.job.spec.parallel.sequence,
        applies=lambda at: _trains_denoiser(at) and at.job.ranks > 1,
    ),
    Knob("ema", "EMA", help_at("train.ema"), _ema_shown, _ema_settings, applies=_trains),
    _field_knob("parallel.offload", "offload", {"true": "to host", "false": "no"}, _trains),
    Knob(
        *("placement", "parts", "All parts in device memory at once, or one at a time."),
        shown=lambda at: "all resident" if at.job.placement == "resident" else "one part at a time",
        settings=_placement_settings,
        applies=_generates,
    ),
    _field_knob(
        "vae.tiling",
        "codec tiles",
        {"{kind: none}": "no", "{kind: spatial}": "in space"},
        lambda at: not (_trains(at) and at.job.stage == "vae"),
    ),
    _field_knob(
        "vae.streaming",
        "codec streaming",
        {"true": "yes", "false": "no"},
        lambda at: not (_trains(at) and at.job.stage == "vae"),
    ),
    Knob(
        *("tf32", "TF32", "Whether fp32 matrix products may use TF32, which PyTorch's default forbids."),
        shown=lambda at: "on" if at.whatif.tf32 else "off",
        settings=_tf32_settings,
        applies=lambda at: _on_cuda(at) and at.job.precision == "fp32",
    ),
)
"""Every knob, in the order in which they are shown."""


def knobs_for(situation: Situation) -> tuple[Knob, ...]:
    """The knobs that have an effect here."""
    return tuple(knob for knob in KNOBS if knob.applies(situation))


def find_knob(key: str) -> Knob:
    """The knob of that key."""
    return next(knob for knob in KNOBS if knob.key == key)


def choice_words(knob: Knob, situation: Situation) -> list[str]:
    """Its settings, for a list to choose from."""
    return [setting.words for setting in knob.settings(situation)]


__all__ = ["KNOBS", "Knob", "Setting", "Situation", "choice_words", "default_batch", "find_knob", "knobs_for"]
