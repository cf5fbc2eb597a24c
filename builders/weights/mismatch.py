"""What to say when a checkpoint does not fit a spec: every tensor that is off, and the spec's line that explains it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from sora_spec.errors import UserError
from sora_spec.language.schema.backbone import Alternating, Joint, Transformer
from sora_spec.language.schema.condition import ClassCondition, TextCondition
from sora_spec.language.schema.spec import Spec

SHOWN = 24
"""Names listed per kind of problem."""


def check_same_shapes(
    given: Mapping[str, Tensor],
    expected: Mapping[str, Sequence[int]],
    reasons: Sequence[str] = (),
    where: str = "the checkpoint",
) -> None:
    """Raise UserError unless names and shapes are the same: one report of everything, with `reasons` as its hint."""
    missing = [f"{name} {_shape(expected[name])}" for name in expected if name not in given]
    unexpected = [f"{name} {_shape(given[name].shape)}" for name in given if name not in expected]
    wrong = [
        f"{name} is {_shape(given[name].shape)}, expected {_shape(shape)}"
        for name, shape in expected.items()
        if name in given and tuple(given[name].shape) != tuple(shape)
    ]
    groups = [("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong)]
    lines = [line for title, names in groups if names for line in _listed(title, names)]
    if lines:
        begin = "" if where == "the checkpoint" else f"{where}: "
        text = f"{begin}the checkpoint does not fit the spec: {len(given)} tensors given, {len(expected)} expected"
        raise UserError("\n".join([text, *lines]), "; ".join(reasons) or "check the spec against the checkpoint's card")


def _listed(title: str, names: list[str]) -> Iterator[str]:
    yield f"  {title} ({len(names)}):"
    yield from (f"    {name}" for name in names[:SHOWN])
    if len(names) > SHOWN:
        yield f"    … and {len(names) - SHOWN} more"


def _shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(str(side) for side in shape) + ")"


def explain(given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], spec: Spec) -> list[str]:
    """Lines of the spec that would make a checkpoint with official names fit, where they can be read off it."""
    assert isinstance(spec.backbone, Transformer)
    if not any(name in expected or re.match(r"blocks\.\d+\.attn\.", name) for name in given):
        shown = ", ".join(list(given)[:3])
        return [f"none of its names is one of DiT's, SiT's or Latte's; they begin: {shown}"]
    return [
        *_sizes(given, spec.backbone),
        *_patches(given, expected),
        *_labels(given, spec),
        *_sigma(given, expected, spec.backbone),
        *_null_prompt(given, expected, spec),
        *_tables(given, expected, spec),
    ]


def _sizes(given: Mapping[str, Tensor], backbone: Transformer) -> Iterator[str]:
    blocks = {int(match[1]) for name in given if (match := re.match(r"blocks\.(\d+)\.", name))}
    if blocks and max(blocks) + 1 != backbone.depth:
        yield f"the file has {max(blocks) + 1} blocks, backbone.depth is {backbone.depth}"
    bias = given.get("t_embedder.mlp.2.bias")
    if bias is not None and len(bias) != backbone.width:
        yield f"the file's tokens have {len(bias)} channels, backbone.width is {backbone.width}"
        return
    hidden, normed = given.get("blocks.0.mlp.fc1.bias"), any(".q_norm." in name for name in given)
    if hidden is not None and len(hidden) != int(backbone.width * backbone.mlp_ratio):
        yield (
            f"the file's MLPs have {len(hidden)} channels: set backbone.mlp_ratio to {len(hidden) / backbone.width:g}"
        )
    if normed != backbone.qk_norm:
        has = "normalises" if normed else "does not normalise"
        yield f"the file's network {has} queries and keys: set backbone.qk_norm to {str(normed).lower()}"


def _patches(given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> Iterator[str]:
    filters, shape = given.get("x_embedder.proj.weight"), expected.get("x_embedder.proj.weight")
    if filters is None or shape is None or filters.ndim not in (4, 5) or _same_patches(given, expected):
        return
    (_, channels, *found), (_, wanted, *sides) = filters.shape, shape
    if channels != wanted:
        yield f"the file's latents have {channels} channels, the spec's {wanted}"
    if found[-2:] != list(sides[-2:]):
        yield f"the file's patches are {found[-2]}x{found[-1]}: set patch.space to {found[-1]}"
    before, now = (extents[0] if len(extents) == 3 else 1 for extents in (found, sides))
    if before != now:
        yield f"the file's patches span {before} frames, the spec's {now}: set patch.time to {before}"


def _same_patches(given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> bool:
    filters, shape = given.get("x_embedder.proj.weight"), expected.get("x_embedder.proj.weight")
    return filters is None or shape is None or tuple(filters.shape[1:]) == tuple(shape[1:])


def _labels(given: Mapping[str, Tensor], spec: Spec) -> Iterator[str]:
    condition, table = spec.condition, given.get("y_embedder.embedding_table.weight")
    if table is None:
        if isinstance(condition, ClassCondition) and not any(name.startswith("y_embedder.") for name in given):
            yield "the file has no table of labels: set condition.kind to none"
        return
    rows = table.shape[0]
    if not isinstance(condition, ClassCondition):
        yield (
            f"the file has a table of {rows} labels, condition.kind is {condition.kind}: "
            f"set condition: {{kind: class, classes: {rows - 1}, dropout: 0.1}}"
        )
    elif rows != condition.classes + (condition.dropout > 0):
        null = "one null label" if condition.dropout > 0 else "no null label, as condition.dropout is 0"
        yield f"the file has a table of {rows} labels, the spec {condition.classes} classes and {null}"


def _sigma(given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], backbone: Transformer) -> Iterator[str]:
    head, shape = given.get("final_layer.linear.bias"), expected.get("final_layer.linear.bias")
    if not _same_patches(given, expected):
        return  # the head differs for that reason
    if head is not None and shape is not None and len(head) == shape[0] * (0.5 if backbone.learn_sigma else 2):
        value = str(not backbone.learn_sigma).lower()
        yield (
            f"the file's head returns {len(head)} values a token, the spec's {shape[0]}: "
            f"set backbone.learn_sigma to {value}"
        )


def _null_prompt(given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], spec: Spec) -> Iterator[str]:
    name = "y_embedder.y_embedding"
    table, shape = given.get(name), expected.get(name)
    if table is not None and shape is None and isinstance(spec.condition, TextCondition):
        yield "the file keeps a null prompt (y_embedding): set condition.no_prompt to table"
    elif table is None and shape is not None:
        yield "the file keeps no null prompt (y_embedding): set condition.no_prompt to empty"
    elif table is not None and shape is not None and tuple(table.shape) != tuple(shape):
        tokens, width = table.shape
        yield f"the file's null prompt is {tokens} tokens of {width}: set condition.tokens and condition.width to these"


def _tables(given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], spec: Spec) -> Iterator[str]:
    kind = spec.temporal.kind
    if "temp_embed" in given and not isinstance(spec.temporal, Alternating):
        yield f"the file is a video model's (it has temp_embed), temporal.kind is {kind}: set it to alternating"
    elif (
        "pos_embed_temporal" in given and "pos_embed_temporal" not in expected and not isinstance(spec.temporal, Joint)
    ):
        yield f"the file is a video model's (it has pos_embed_temporal), temporal.kind is {kind}: set it to joint"
    elif kind == "factorized" and not any(".attn_temp." in name for name in given):
        yield _image_model("attention")
    elif {"temp_embed", "pos_embed_temporal"} & (expected.keys() - given.keys()) and "pos_embed" in given:
        yield _image_model("table")
    for name in ("pos_embed", "pos_embed_spatial", "temp_embed", "pos_embed_temporal"):
        table, shape = given.get(name), expected.get(name)
        if table is None or shape is None or table.shape[-1:] != tuple(shape)[-1:]:
            continue  # absent, or of another width, which is told
        if tuple(table.shape) != tuple(shape):
            yield f"{name} is not the sine-cosine table of any grid, so it cannot be rebuilt for the spec's"


def _image_model(lacking: str) -> str:
    return (
        f"the file is an image model's (it has no {lacking} over frames): training starts from it, "
        "but it makes no video by itself; set temporal.kind to none for its images"
    )
