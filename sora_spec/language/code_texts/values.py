"""E2xx: one value is wrong in itself."""

from __future__ import annotations

from sora_spec.language.code_texts.code import Code

CODES = (
    Code(
        "E201",
        "an unknown key",
        "The section has no such key. Unknown keys are errors, because a misspelt key would else leave the default "
        "in place without a word. What a section may hold can depend on its `kind`. Keys that start with `x-` are "
        "ignored at every level; they are a place for anchors.",
        "patch: {time: 1, spcae: 2}",
        "patch: {time: 1, space: 2}",
    ),
    Code(
        "E202",
        "a missing key",
        "The section has no value for a key that has no default. The report points at the section's key and names all "
        "that is missing, with an example value each.",
        "clip: {frames: 8}",
        "clip: {frames: 8, height: 32, width: 32}",
    ),
    Code(
        "E203",
        "a value of the wrong type",
        "Values are never converted: `'16'` is text, `16.0` is no whole number, and `yes` is text in YAML 1.2. "
        "A section with a `kind` is always a mapping.",
        "clip: {frames: sixteen, height: 32, width: 32}",
        "clip: {frames: 16, height: 32, width: 32}",
    ),
    Code(
        "E204",
        "a number outside its range",
        "The bounds are far above every published system; they turn a slip of the keyboard into an error at its line.",
        "clip: {frames: 0, height: 32, width: 32}",
        "clip: {frames: 8, height: 32, width: 32}",
    ),
    Code(
        "E205",
        "an unknown kind",
        "`kind` chooses the variant of a section. The help line lists the variants.",
        "temporal: {kind: alternate}",
        "temporal: {kind: alternating}",
    ),
    Code(
        "E206",
        "a value that is none of the choices",
        "The key takes one of a few words or numbers, which the help line lists.",
        "train: {precision: fp64}",
        "train: {precision: fp32}",
    ),
    Code(
        "E207",
        "a list of the wrong length",
        "The key takes a list with a fixed or bounded number of items.",
        "export: {batch: [1, 2, 4]}",
        "export: {batch: [1, 4]}",
    ),
    Code(
        "E208",
        "a text that cannot be used",
        "Names become folder names, so they are made of letters, digits, `.`, `_` and `-`.",
        "name: my model",
        "name: my-model",
    ),
    Code(
        "E209",
        "a number that is not finite",
        "`.inf` and `.nan` have no meaning in a spec, and a number such as `1e999` overflows to infinity.",
        "train: {optimizer: {kind: adamw, lr: .nan}}",
        "train: {optimizer: {kind: adamw, lr: 1e-4}}",
    ),
)
