"""Open-Sora 1.0's STDiT as one straight line over a checkpoint, written from its description and not from its code.

The names are those of a published checkpoint (`OpenSora-v1-*.pth`). Everything is computed in float64, one clip and one
prompt at a time, so that a prompt's padding is left out rather than hidden.

Legend: `C F H W` latents, `f` token frames, `S` tokens of a frame, `D` width, `M` text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def stdit(
    weights: Weights,
    latents: Tensor,
    time: Tensor,
    prompts: Tensor,
    mask: Tensor,
    heads: int,
    scales: tuple[float, float],
) -> Tensor:
    """(B, C, F, H, W), (B,), (B, M, width) and (B, M) → (B, 2·C, F, H, W), for patches of 1x2x2.

    `scales`: what rows and columns, and what frames are divided by.
    """
    state = {name: tensor.double() for name, tensor in weights.items()}
    clips = [
        _clip(state, x.double(), float(t), y.double()[shown.bool()], heads, scales)
        for x, t, y, shown in zip(latents, time, prompts, mask, strict=True)
    ]
    return torch.stack(clips)


def _clip(w: Weights, x: Tensor, time: float, prompt: Tensor, heads: int, scales: tuple[float, float]) -> Tensor:
    channels, frames, height, width = x.shape
    rows, columns = height // 2, width // 2
    # A patch is a vector of its channels, rows and columns; the filter of the convolution is one row per output.
    patches = (
        x.reshape(channels, frames, rows, 2, columns, 2).permute(1, 2, 4, 0, 3, 5).reshape(frames, rows * columns, -1)
    )
    filters = w["x_embedder.proj.weight"]
    size = filters.shape[0]
    h = patches @ filters.reshape(size, -1).T + w["x_embedder.proj.bias"]  # (f, S, D)
    at_row = torch.arange(rows).repeat_interleave(columns) / scales[0]
    at_column = torch.arange(columns).repeat(rows) / scales[0]
    h = h + torch.cat([_wave(at_column, size // 2), _wave(at_row, size // 2)], dim=1)
    in_time = _wave(torch.arange(frames) / scales[1], size)  # (f, D)

    angles = time * torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float64) / 128)
    t = _linear(w, "t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()]))
    t = _linear(w, "t_embedder.mlp.2", _silu(t))  # (D,)
    shared = _linear(w, "t_block.1", _silu(t)).reshape(6, size)
    text = _linear(w, "y_embedder.y_proj.fc2", _gelu(_linear(w, "y_embedder.y_proj.fc1", prompt)))  # (M, D)

    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    for i in range(depth):
        block = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = shared + w[f"{block}.scale_shift_table"]
        seen = _norm(h) * (1 + scale1) + shift1
        h = h + gate1 * _self_attention(w, f"{block}.attn", seen, heads)  # among the places of a frame
        across = h.transpose(0, 1)  # (S, f, D): no norm and no shift
        if i == 0:
            across = across + in_time  # only what this attention reads: h does not keep it
        h = h + gate1 * _self_attention(w, f"{block}.attn_temp", across, heads).transpose(0, 1)
        q = _linear(w, f"{block}.cross_attn.q_linear", h.reshape(-1, size))
        k, v = _linear(w, f"{block}.cross_attn.kv_linear", text).chunk(2, dim=-1)
        h = h + _linear(w, f"{block}.cross_attn.proj", _attention(q, k, v, heads)).reshape(h.shape)
        seen = _norm(h) * (1 + scale2) + shift2
        h = h + gate2 * _linear(w, f"{block}.mlp.fc2", _gelu(_linear(w, f"{block}.mlp.fc1", seen)))

    shift, scale = t + w["final_layer.scale_shift_table"]
    out = _linear(w, "final_layer.linear", _norm(h) * (1 + scale) + shift)  # (f, S, 2·2·Cout), channels last
    return out.reshape(frames, rows, columns, 2, 2, -1).permute(5, 0, 1, 3, 2, 4).reshape(-1, frames, height, width)


def _wave(position: Tensor, size: int) -> Tensor:
    """(L,) → (L, size): sines, then cosines, of position / 10000^(2i/size)."""
    rates = torch.tensor([10_000 ** (-2 * i / size) for i in range(size // 2)], dtype=torch.float64)
    return torch.cat(
        [torch.sin(position.double()[:, None] * rates), torch.cos(position.double()[:, None] * rates)], dim=1
    )


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _gelu(x: Tensor) -> Tensor:
    """GELU by its tanh approximation."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _self_attention(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = _linear(w, f"{name}.qkv", x).chunk(3, dim=-1)
    return _linear(w, f"{name}.proj", _attention(q, k, v, heads))


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(..., L, D) and (..., M, D) → (..., L, D), head by head."""
    out = []
    for one, other, value in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        scores = one @ other.transpose(-2, -1) / math.sqrt(one.shape[-1])
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        out.append(weights / weights.sum(-1, keepdim=True) @ value)
    return torch.cat(out, dim=-1)
