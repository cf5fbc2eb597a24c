"""A suggestion is near enough to be meant, or there is none; words of other systems lead to what is true here."""

from __future__ import annotations

import pytest

from sora_spec.diagnostics import edits, nearest
from sora_spec.loading import check
from sora_spec.packaged import find_spec_file
from sora_spec.source import load_document


def _help(argument: str, spec: str = "tiny-sit-digits") -> str:
    found = check(load_document(find_spec_file(spec), [argument])).diagnostics
    return next(item.help or "" for item in found if item.span is not None and item.span.text.origin == "argument")


@pytest.mark.parametrize(
    ("argument", "words", "never"),
    [
        ("train.compile=true", "sora-spec export --trt", "recompute"),
        ("train.torch_compile=true", "sora-spec export --trt", "recompute"),
        ("train.epochs=3", "`steps`", "Did you mean"),
        ("train.flash_attn=true", "plan --attention", "Did you mean"),
        ("train.gradient_checkpointing=true", "Did you mean `recompute`?", "checkpoint_every"),
        ("train.batch_size=4", "Did you mean `batch`?", "micro_batch"),
        ("train.batchsize=4", "Did you mean `batch`?", "micro_batch"),
        ("train.ema_decay=0.9", "Did you mean `ema`?", "ema_device"),
        ("train.lr=1", "Did you mean `optimizer.lr`?", "log_every"),
        ("train.max_grad_norm=1", "Did you mean `clip_grad`?", "log_every"),
        ("train.stesp=4", "Did you mean `steps`?", "seed"),
        ("sampler.guidance_scale=4", "Did you mean `guidance`?", "guidance_channels"),
        ("sampler.num_inference_steps=4", "Did you mean `steps`?", "Did you mean `guidance`"),
        ("clip.resolution=256", "`height` and `width`", "Did you mean"),
        ("backbone.hidden_size=64", "Did you mean `width`?", "heads"),
        ("backbone.num_heads=4", "Did you mean `heads`?", "width"),
        ("hardware.num_gpus=4", "Did you mean `count`?", "Did you mean `gpu`"),
        ("sampler.kind=dpm++", "Kinds: `ddpm`, `ddim`, `euler`", "Did you mean"),
        ("sampler.kind=unipc", "Kinds: `ddpm`", "Did you mean"),
        ("sampler.kind=dpm_solver", "Kinds: `ddpm`", "Did you mean"),
        ("sampler.kind=lms", "Kinds: `ddpm`", "Did you mean"),
        ("sampler.kind=flow_match_euler", "Did you mean `euler`?", "Did you mean `euler_maruyama`"),
        ("sampler.kind=rk45", "Did you mean `dopri5`?", "Did you mean `ddpm`"),
        ("sampler.kind=sde", "Did you mean `euler_maruyama`?", "Did you mean `ddim`"),
        ("sampler.kind=Heun", "Did you mean `heun`?", "Did you mean `euler`"),
        ("sampler.kind=eulr", "Did you mean `euler`?", "Did you mean `heun`"),
        ("objective.kind=rectified-flow", "Did you mean `interpolant`?", "Did you mean `ddpm`"),
        ("temporal.kind=full_attention", "Did you mean `joint`?", "Did you mean `alternating`"),
        ("temporal.kind=alternate", "Did you mean `alternating`?", "Did you mean `factorized`"),
        ("backbone.kind=unet", "Kinds: `transformer`", "Did you mean"),
        ("train.precision=bfloat16", "Did you mean `bf16`?", "Did you mean `fp32`"),
        ("train.precision=int8", "Choices: `fp32`, `bf16`", "Did you mean"),
    ],
)
def test_a_suggestion_leads_to_what_is_meant(argument: str, words: str, never: str) -> None:
    said = _help(argument)
    assert words in said
    assert never not in said


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 1), ("steps", "stesp", 1), ("flaw", "lawn", 2)],
)
def test_mistakes_are_counted_as_in_text_books(a: str, b: str, distance: int) -> None:
    """Levenshtein's examples, and a swap of neighbours as one."""
    assert edits(a, b) == edits(b, a) == distance


def test_nothing_near_is_nothing() -> None:
    assert nearest("zzz", ["heun", "euler"]) is None
    assert nearest("", ["heun"]) is None
    assert nearest("x", ["a", "b"]) is None
    assert nearest("h" * 10_000, ["heun"]) is None
