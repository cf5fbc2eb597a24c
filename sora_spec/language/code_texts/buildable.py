"""E4xx and W401: the language can say it, and this program cannot do it yet."""

from __future__ import annotations

from sora_spec.language.abilities import buildable
from sora_spec.language.code_texts.code import Code
from sora_spec.language.wording import listed

_PROMISE = (
    "The variant is part of the language, so that specs of these systems can be written and discussed, but there is no "
    "module for it yet. "
)


def _built(section: str) -> str:
    return f"{_PROMISE}Can be built: {listed(buildable(section))}"


CODES = (
    Code(
        "E401",
        "a VAE that cannot be built yet",
        _built("vae") + ".",
        "vae: {kind: cascade, compression: {time: 1, space: 8}}",
        "vae: {kind: image_kl}",
    ),
    Code(
        "E402",
        "a decoder that cannot be built yet",
        _built("vae.decoder") + ", the VAE's own decoder.",
        "vae: {kind: image_kl, decoder: {kind: consistency}}",
        "vae: {kind: image_kl, decoder: {kind: kl}}",
    ),
    Code(
        "E403",
        "a network that cannot be built yet",
        _built("backbone") + ".",
        "backbone: {kind: cascade}",
        "backbone: {kind: transformer, depth: 2, width: 64, heads: 4, learn_sigma: false}",
    ),
    Code(
        "E404",
        "temporal layers that cannot be built yet",
        _built("temporal") + ".",
        "temporal: {kind: inserted}",
        "temporal: {kind: alternating}",
    ),
    Code(
        "E405",
        "a conditioning that cannot be built yet",
        _built("backbone.conditioning") + ". `cross_attention` goes with the tokens of a text, the others with no "
        "condition, a class, or a pooled text vector.",
        "backbone: {kind: transformer, depth: 2, width: 64, heads: 4, conditioning: {kind: adaln_lora}}",
        "backbone: {kind: transformer, depth: 2, width: 64, heads: 4, conditioning: {kind: adaln_zero}}",
    ),
    Code(
        "E406",
        "positions that cannot be built yet",
        _built("backbone.position") + ".",
        "backbone: {kind: transformer, depth: 2, width: 64, heads: 4, position: {kind: learned}}",
        "backbone: {kind: transformer, depth: 2, width: 64, heads: 4, position: {kind: rope}}",
    ),
    Code(
        "W401",
        "a spec that can be planned, but not trained, exported or generated from",
        "The spec is right, its memory and time can be planned, and its networks can be built; but a verb of this "
        "program would refuse it. The message names the verbs, the caret the value, and the help a way to do without. "
        "`plan` and `tui` say the same in their verdict, and `train`, `export` and `generate` before they begin.",
        "parallel: {sequence: 2}",
        "parallel: {shard: 2}",
    ),
)
