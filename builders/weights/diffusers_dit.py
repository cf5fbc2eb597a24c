"""diffusers' DiT (`DiTTransformer2DModel`) ⇄ the flat official layout.

As diffusers' `scripts/convert_dit_to_diffusers.py`, and its reverse. That layout has the embedders of time and label in
every block, and query, key and value apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sora_spec.errors import UserError

TOP = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
BLOCK = {
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
SHARED = {
    "norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "norm1.emb.class_embedder.embedding_table": "y_embedder.embedding_table",
}
QKV = tuple(f"attn1.to_{part}" for part in "qkv")
_IN_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


def is_diffusers(state: dict[str, Tensor]) -> bool:
    """Whether the names are diffusers'."""
    return any(name.startswith("transformer_blocks.") for name in state)


def flat_from_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename, fuse and drop duplicates. Names that are not known stay as they are, for the caller to report.

    Raises UserError when copies that must be one tensor differ from block to block.
    """
    flat: dict[str, Tensor] = {}
    differing: list[str] = []
    for name, tensor in state.items():
        target = _target(name)
        if target in flat and not torch.equal(flat[target], tensor):
            differing.append(name)
        flat.setdefault(target, tensor)
    if differing:
        raise UserError(
            f"{len(differing)} copies of an embedder differ from the first block's, so they are not one network's: "
            + ", ".join(sorted(differing)[:8]),
            "such a file was fine-tuned block by block and has no counterpart here",
        )
    for prefix, kind in list(_split_attentions(flat)):
        parts = [flat.pop(f"{prefix}.{part}.{kind}") for part in QKV]
        flat[f"{prefix.replace('transformer_blocks', 'blocks')}.attn.qkv.{kind}"] = torch.cat(parts)
    return flat


def diffusers_from_flat(flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official layout as diffusers': the table of positions is computed there and not stored."""
    depth = 1 + max(int(match[1]) for name in flat if (match := re.match(r"blocks\.(\d+)\.", name)))
    top = {ours: theirs for theirs, ours in TOP.items()}
    shared, block = ({ours: theirs for theirs, ours in names.items()} for names in (SHARED, BLOCK))
    state: dict[str, Tensor] = {}
    for name, tensor in flat.items():
        stem, _, kind = name.rpartition(".")
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", stem)
        if name == "pos_embed":
            continue
        if stem in shared:
            state |= {f"transformer_blocks.{i}.{shared[stem]}.{kind}": tensor for i in range(depth)}
        elif match and match[2] == "attn.qkv":
            parts = zip(QKV, tensor.chunk(3), strict=True)
            state |= {f"transformer_blocks.{match[1]}.{part}.{kind}": third for part, third in parts}
        elif match:
            state[f"transformer_blocks.{match[1]}.{block[match[2]]}.{kind}"] = tensor
        else:
            state[f"{top[stem]}.{kind}"] = tensor
    return state


def _target(name: str) -> str:
    """Flat name of one tensor; itself for queries, keys, values and what is not known."""
    match = _IN_BLOCK.fullmatch(name)
    if name in TOP:
        return TOP[name]
    stem, _, kind = (match[2] if match else name).rpartition(".")
    if match and stem in SHARED:
        return f"{SHARED[stem]}.{kind}"
    if match and stem in BLOCK:
        return f"blocks.{match[1]}.{BLOCK[stem]}.{kind}"
    if not match and stem in TOP:
        return f"{TOP[stem]}.{kind}"
    return name


def _split_attentions(flat: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Block prefixes and `weight` or `bias`, where all of query, key and value are there."""
    for name in list(flat):
        match = re.fullmatch(r"(transformer_blocks\.\d+)\.attn1\.to_q\.(weight|bias)", name)
        if match and all(f"{match[1]}.{part}.{match[2]}" in flat for part in QKV):
            yield match[1], match[2]
