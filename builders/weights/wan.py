"""Wan 2.1's text-to-video checkpoints ⇄ the transformer's state dict: the published layout, and diffusers'.

Beside names, three things differ. Wan turns neighbouring channels of a head together, (2i, 2i+1), ours are half a head
apart, (i, i + d/2): rows of queries and keys, and gains of their norms, change places. Its queries, keys and values
are layers of their own. And its network predicts noise − data, ours data − noise: the head changes its sign.
Source: Wan-Video/Wan2.1 `wan/modules/model.py`, diffusers' `WanTransformer3DModel`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sora_spec.builders.blocks.position import rope_axes
from sora_spec.errors import UserError
from sora_spec.language.schema.backbone import CrossAttention, Joint, Rope, Transformer
from sora_spec.language.schema.condition import TextCondition
from sora_spec.language.schema.spec import Spec

BLOCK = r"(blocks\.\d+)"
PUBLISHED = (
    ("patch_in.proj", "patch_embedding"),
    ("time_embed.fc1", "time_embedding.0"),
    ("time_embed.fc2", "time_embedding.2"),
    ("modulation", "time_projection.1"),
    ("condition_embed.fc1", "text_embedding.0"),
    ("condition_embed.fc2", "text_embedding.2"),
    ("patch_out.proj", "head.head"),
    (r"patch_out\.modulation\.weight", "head.modulation"),
    (BLOCK + r"\.modulation\.weight", r"\1.modulation"),
    (BLOCK + r"\.cross_norm", r"\1.norm3"),
    (BLOCK + r"\.attention\.(q|k|v)_norm", r"\1.self_attn.norm_\2"),
    (BLOCK + r"\.attention\.out", r"\1.self_attn.o"),
    (BLOCK + r"\.attention\.(q|k|v)", r"\1.self_attn.\2"),
    (BLOCK + r"\.cross\.(q|k|v)_norm", r"\1.cross_attn.norm_\2"),
    (BLOCK + r"\.cross\.out", r"\1.cross_attn.o"),
    (BLOCK + r"\.cross\.(q|k|v)", r"\1.cross_attn.\2"),
    (BLOCK + r"\.mlp\.fc1", r"\1.ffn.0"),
    (BLOCK + r"\.mlp\.fc2", r"\1.ffn.2"),
)
"""Our names, with queries, keys and values apart, and the published ones, as prefixes."""
DIFFUSERS = (
    ("patch_in.proj", "patch_embedding"),
    ("time_embed.fc1", "condition_embedder.time_embedder.linear_1"),
    ("time_embed.fc2", "condition_embedder.time_embedder.linear_2"),
    ("modulation", "condition_embedder.time_proj"),
    ("condition_embed.fc1", "condition_embedder.text_embedder.linear_1"),
    ("condition_embed.fc2", "condition_embedder.text_embedder.linear_2"),
    ("patch_out.proj", "proj_out"),
    (r"patch_out\.modulation\.weight", "scale_shift_table"),
    (BLOCK + r"\.modulation\.weight", r"\1.scale_shift_table"),
    (BLOCK + r"\.cross_norm", r"\1.norm2"),
    (BLOCK + r"\.attention\.(q|k|v)_norm", r"\1.attn1.norm_\2"),
    (BLOCK + r"\.attention\.out", r"\1.attn1.to_out.0"),
    (BLOCK + r"\.attention\.(q|k|v)", r"\1.attn1.to_\2"),
    (BLOCK + r"\.cross\.(q|k|v)_norm", r"\1.attn2.norm_\2"),
    (BLOCK + r"\.cross\.out", r"\1.attn2.to_out.0"),
    (BLOCK + r"\.cross\.(q|k|v)", r"\1.attn2.to_\2"),
    (BLOCK + r"\.mlp\.fc1", r"\1.ffn.net.0.proj"),
    (BLOCK + r"\.mlp\.fc2", r"\1.ffn.net.2"),
)
"""The same for diffusers."""
FUSED = {"attention.qkv": ("q", "k", "v"), "cross.kv": ("k", "v")}
"""Our layers that are several in both layouts."""
ANCHOR = "patch_embedding.weight"


def not_wans(spec: Spec) -> list[str]:
    """The fields that would have to be set for the network to be Wan's; none where it is."""
    backbone = spec.backbone
    if not isinstance(backbone, Transformer):
        return ["backbone.kind=transformer"]
    text, position, head = backbone.conditioning, backbone.position, backbone.width // backbone.heads
    side = 2 * (head // 6)
    axes = (head - 2 * side, side, side)
    attends = isinstance(text, CrossAttention) and (text.modulation, text.norm, text.qk_norm) == ("single", True, True)
    right = {
        "temporal.kind=joint": isinstance(spec.temporal, Joint),
        "backbone.conditioning={kind: cross_attention, norm: true, qk_norm: true}": attends,
        f"backbone.position={{kind: rope, axes: {list(axes)}}}": isinstance(position, Rope)
        and position.theta == 10_000
        and rope_axes(position, head) == axes,
        "backbone.qk_norm=true": backbone.qk_norm,
        "backbone.qk_norm_over=width": backbone.qk_norm_over == "width",
        "backbone.time_input=noise_level": backbone.time_input == "noise_level",
        "backbone.learn_sigma=false": not backbone.learn_sigma,
    }
    return [field for field, holds in right.items() if not holds]


def check_wans(given: Mapping[str, Tensor], spec: Spec, where: str) -> None:
    """Raise UserError where a file in one of the two layouts is of another network than the spec's."""
    others = [name for name in given if "add_k_proj" in name or "k_img" in name or name.startswith("img_emb")]
    if others:
        raise UserError(
            f"{where} is Wan's image-to-video network: it has {others[0]}", "text-to-video checkpoints can be read"
        )
    fields = not_wans(spec)
    backbone = spec.backbone
    blocks = 1 + max((int(match[1]) for name in given if (match := re.match(r"blocks\.(\d{1,6})\.", name))), default=-1)
    width, channels = given[ANCHOR].shape[:2]
    sizes = {"width": (width, backbone.width)}
    if isinstance(backbone, Transformer):
        sizes["depth"] = (blocks, backbone.depth)
    fields += [f"backbone.{name}={theirs}" for name, (theirs, ours) in sizes.items() if theirs != ours]
    if channels != spec.vae.channels:
        fields.append(f"vae.channels={channels}")
    if fields:
        raise UserError(f"{where} is Wan's network, and {spec.name} is another", "set " + " ".join(fields))


def has_wans_names(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are of one of the two layouts."""
    return ANCHOR in state and ("head.head.weight" in state or "condition_embedder.time_proj.weight" in state)


def to_wan(state: Mapping[str, Tensor], spec: Spec, diffusers: bool = False) -> dict[str, Tensor]:
    """Our state dict in one of the two layouts; loads with `strict=True` there."""
    names = DIFFUSERS if diffusers else PUBLISHED
    return {
        _renamed(name, names): _turned(name, tensor, spec, back=True)
        for whole, fused in state.items()
        for name, tensor in _parts(whole, fused)
    }


def from_wan(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """Tensors of either layout under our names, as far as they go; names that are not Wan's stay as they are.

    `expected`: our state dict, of which names and shapes are read.
    """
    names = DIFFUSERS if "proj_out.weight" in given else PUBLISHED
    left, found = dict(given), dict[str, Tensor]()
    for whole, like in expected.items():
        theirs = [(name, _renamed(name, names)) for name, _ in _parts(whole, like)]
        if not all(name in left for _, name in theirs):
            continue
        parts = [_turned(name, left.pop(there), spec, back=False) for name, there in theirs]
        found[whole] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return found | left


def _parts(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """A tensor of ours, or of a fused layer each part of it, by name."""
    for fused, letters in FUSED.items():
        if f".{fused}." in name:
            stem = fused.split(".")[0]
            pieces = tensor.chunk(len(letters))
            return [
                (name.replace(f".{fused}.", f".{stem}.{letter}."), piece)
                for letter, piece in zip(letters, pieces, strict=True)
            ]
    return [(name, tensor)]


def _renamed(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in names:
        renamed, count = re.subn(rf"^{ours}(?=\.|$)", theirs, name)
        if count:
            return renamed
    return name


def _turned(name: str, tensor: Tensor, spec: Spec, back: bool) -> Tensor:
    """One tensor from Wan's conventions to ours, or `back`."""
    backbone, patch = spec.backbone, spec.patch
    if re.search(r"\.attention\.[qk](_norm)?\.", name):
        head = tensor.shape[0] // backbone.heads
        pairs = (2, head // 2) if back else (head // 2, 2)
        return tensor.unflatten(0, (backbone.heads, *pairs)).transpose(1, 2).flatten(0, 2)
    if name.startswith("patch_out.proj"):
        return -tensor
    if name == "patch_in.proj.weight":
        kernel = (spec.vae.channels, patch.time, patch.space, patch.space)
        return tensor.reshape(tensor.shape[0], *kernel) if back else tensor.flatten(1)
    if name.endswith("modulation.weight") and tensor.ndim == (2 if back else 3) and name != "modulation.weight":
        return tensor[None] if back else tensor[0]
    return tensor


def wan_config(spec: Spec) -> dict[str, Any]:
    """diffusers' `config.json`."""
    backbone, condition = spec.backbone, spec.condition
    assert isinstance(backbone, Transformer)
    assert isinstance(condition, TextCondition)
    head = backbone.width // backbone.heads
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": [spec.patch.time, spec.patch.space, spec.patch.space],
        "num_attention_heads": backbone.heads,
        "attention_head_dim": head,
        "in_channels": spec.vae.channels,
        "out_channels": spec.vae.channels,
        "text_dim": condition.width,
        "freq_dim": 256,
        "ffn_dim": int(backbone.width * backbone.mlp_ratio),
        "num_layers": backbone.depth,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "rope_max_seq_len": 1024,
    }
