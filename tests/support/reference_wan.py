"""Wan 2.1's text-to-video network as one straight line in float64, on the published names (arXiv 2503.20314 §4.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu


def forward(state: dict[str, Tensor], heads: int, latents: Tensor, noise_level: Tensor, text: Tensor) -> Tensor:
    """Latents (B, C, F, H, W), noise levels (B,) of 0 to 1000, text (B, M, W) → noise − data."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def normal(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + 1e-6)

    def rms(name: str, x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * state[f"{name}.weight"]

    def attention(name: str, asking: Tensor, asked: Tensor, angles: Tensor | None) -> Tensor:
        q = rms(f"{name}.norm_q", linear(f"{name}.q", asking)).unflatten(-1, (heads, -1))
        k = rms(f"{name}.norm_k", linear(f"{name}.k", asked)).unflatten(-1, (heads, -1))
        v = linear(f"{name}.v", asked).unflatten(-1, (heads, -1))
        if angles is not None:
            turn = torch.polar(torch.ones_like(angles), angles)[None, :, None]
            q, k = (
                torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)
                for x in (q, k)
            )
        scores = torch.einsum("blhd,bmhd->bhlm", q, k) / math.sqrt(q.shape[-1])
        return linear(f"{name}.o", torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), v).flatten(-2))

    filters = state["patch_embedding.weight"]  # (D, C, t, p, q)
    width, channels, t, p, q = filters.shape
    batch, _, frames, height, columns = latents.shape
    f, h, w = frames // t, height // p, columns // q
    boxes = latents.double().reshape(batch, channels, f, t, h, p, w, q).permute(0, 2, 4, 6, 1, 3, 5, 7)
    x = boxes.reshape(batch, f * h * w, -1) @ filters.flatten(1).T + state["patch_embedding.bias"]

    rates = torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float64) / 128)
    wave = noise_level.double()[:, None] * rates
    e = linear("time_embedding.2", silu(linear("time_embedding.0", torch.cat([wave.cos(), wave.sin()], 1))))
    e6 = linear("time_projection.1", silu(e)).unflatten(1, (6, width))
    prompt = linear("text_embedding.2", gelu(linear("text_embedding.0", text.double()), approximate="tanh"))

    head = width // heads
    side = 2 * (head // 6)
    place = torch.cartesian_prod(torch.arange(f), torch.arange(h), torch.arange(w)).double()
    parts = [
        place[:, axis, None] * 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        for axis, size in enumerate((head - 2 * side, side, side))
    ]
    angles = torch.cat(parts, 1)  # (L, d/2)

    block = 0
    while f"blocks.{block}.modulation" in state:
        name = f"blocks.{block}"
        shift1, scale1, gate1, shift2, scale2, gate2 = (state[f"{name}.modulation"] + e6)[:, :, None].unbind(1)
        y = normal(x) * (1 + scale1) + shift1
        x = x + gate1 * attention(f"{name}.self_attn", y, y, angles)
        asking = normal(x) * state[f"{name}.norm3.weight"] + state[f"{name}.norm3.bias"]
        x = x + attention(f"{name}.cross_attn", asking, prompt, None)
        y = normal(x) * (1 + scale2) + shift2
        x = x + gate2 * linear(f"{name}.ffn.2", gelu(linear(f"{name}.ffn.0", y), approximate="tanh"))
        block += 1

    shift, scale = (state["head.modulation"] + e[:, None])[:, :, None].unbind(1)
    out = linear("head.head", normal(x) * (1 + scale) + shift)
    return (
        out.reshape(batch, f, h, w, t, p, q, -1)
        .permute(0, 7, 1, 4, 2, 5, 3, 6)
        .reshape(batch, -1, frames, height, columns)
    )
