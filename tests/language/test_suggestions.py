"""A suggestion is near enough to be meant, or there is none; words of other systems lead to what is true here."""

from __future__ import annotations

import pytest

from sora_spec.language.diagnostics import edits, nearest
from sora_spec.language.grammar import language
from sora_spec.language.loading import check
from sora_spec.language.other_words import ELSEWHERE, KEYS
from sora_spec.language.packaged import find_spec_file
from sora_spec.language.source import load_document


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
        ("train.checkpointing_steps=5", "Did you mean `checkpoint_every`?", "Did you mean `steps`"),
        ("train.save_total_limit=5", "Did you mean `keep`?", "sample_every"),
        ("train.logging_steps=5", "Did you mean `log_every`?", "Did you mean `steps`"),
        ("train.per_device_train_batch_size=5", "Did you mean `micro_batch`?", "Did you mean `batch`"),
        ("train.num_train_epochs=5", "`steps`", "Did you mean"),
        ("train.num_warmup_steps=5", "Did you mean `warmup`?", "Did you mean `steps`"),
        ("train.adam_beta1=5", "Did you mean `optimizer.betas`?", "Did you mean `ema`"),
        ("train.optimizer.learning_rate=5", "Did you mean `lr`?", "Other keys"),
        ("train.optimizer.lr_scheduler=5", "`train.schedule`", "Did you mean"),
        ("train.optimizer.name=adam", "Did you mean `kind`?", "left margin"),
        ("train.offload_optimizer=true", "`offload` is a key of `parallel`", "Did you mean `optimizer`"),
        ("train.device=cuda", "train --device", "ema_device"),
        ("train.stills=true", "Did you mean `repeat`?", "quotes"),
        ("train.precision=16", "Choices: `fp32`, `bf16`", "quotes"),
        ("train.recompute=true", "{kind: blocks}", "{kind: none}"),
        ("train.recompute=attention", "Kinds: `none`, `blocks`", "{kind: none}"),
        ("backbone.dropout=0.1", "Blocks have no dropout", "move it there"),
        ("backbone.attention_head_dim=72", "`width` / `heads`", "Did you mean `heads`"),
        ("backbone.patch_size=2", "`space` is a key of `patch`", "Did you mean"),
        ("backbone.caption_channels=4096", "`condition.width`", "Did you mean `width`"),
        ("backbone.position.kind=nope", "Did you mean `none`?", "Did you mean `rope`"),
        ("clip.frame_rate=8", "Did you mean `fps`?", "Remove it"),
        ("clip.duration=8", "seconds × fps", "Remove it"),
        ("clip.length=8", "Did you mean `frames`?", "Remove it"),
        ("vae.micro_batch_size=2", "`vae.training.batch`", "`train`"),
        ("vae.training.micro_batch_size=2", "`vae.training.batch`", "`train`"),
        ("vae.training.gradient_accumulation_steps=2", "one pass", "`train`"),
        ("vae.batch_size=2", "Did you mean `training.batch`?", "`export`"),
        ("vae.steps=2", "Did you mean `training.steps`?", "`sampler`"),
        ("vae.learning_rate=2", "Did you mean `training.optimizer.lr`?", "`train`"),
        ("vae.mixed_precision=bf16", "Did you mean `training.precision`?", "`export`"),
        ("vae.training.lr=2", "Did you mean `optimizer.lr`?", "`train`"),
        ("vae.patch_size=2", "`space` is a key of `patch`", "`training"),
        ("vae.path=a", "Did you mean `weights`?", "`objective`"),
        ("vae.block_out_channels=[1]", "`multipliers`", "Did you mean `channels`"),
        ("vae.embed_dim=4", "Did you mean `channels`?", "Did you mean `width`"),
        ("sampler.guidance_rescale=1", "leave it out", "Did you mean `guidance`"),
        ("sampler.seed=1", "generate --seed", "`train`"),
        ("sampler.kind=euler_a", "Kinds: `ddpm`", "Did you mean"),
        ("condition.uncond_prob=1", "Did you mean `dropout`?", "Remove it"),
        ("condition.text_encoder=a", "`encoder` belongs to `kind: text`", "Remove it"),
        ("parallel.tp=2", "`parallel.shard`", "Did you mean"),
        ("parallel.num_nodes=2", "`hardware.count`", "Did you mean"),
        ("hardware.name=h100", "Did you mean `gpu`?", "left margin"),
        ("hardware.world_size=2", "Did you mean `count`?", "Remove it"),
        ("patch.temporal=2", "Did you mean `time`?", "left margin"),
        ("export.onnx=true", "Did you mean `backends`?", "Did you mean `batch`"),
        ("model=dit", "Did you mean `backbone`?", "Remove it"),
        ("scheduler=dpm", "Did you mean `sampler`?", "Did you mean `schedule`"),
        ("lr=1", "`optimizer.lr`", "Remove it"),
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


def test_every_word_of_another_system_leads_to_a_field_that_there_is() -> None:
    fields = set[str]()
    for definition in language()["$defs"].values():
        fields |= set(definition.get("properties", {}))
    fields |= set(language()["properties"])
    for word, meant in KEYS.items():
        for path in meant:
            assert set(path.split(".")) <= fields, (word, path)
    assert not set(KEYS) & set(ELSEWHERE)
