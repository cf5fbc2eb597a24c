"""DiT, SiT, Latte and VDiT written out as plain functions over a state dict in the official layout.

Independent of the package under test: nothing of it is imported. Every dtype works, float64 too. Sources:
facebookresearch/DiT `models.py`, Vchitect/Latte `latte.py`, OpenDiT v1.0.0 `opendit/models`, GPT-NeoX rotary pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

State = dict[str, Tensor]
AttentionFn = Callable[[Tensor, Tensor, Tensor], Tensor]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


def within(window: tuple[int, int, int], where: list[tuple[int, int, int]]) -> AttentionFn:
    """Attention of all tokens to all, but those of other windows are hidden."""
    number = [tuple(p // size for p, size in zip(place, window, strict=True)) for place in where]
    hidden = torch.tensor([[one != other for other in number] for one in number])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return scores.masked_fill(hidden, float("-inf")).softmax(dim=-1) @ v

    return attend


@dataclass(frozen=True)
class Network:
    """What a state dict does not say."""

    heads: int
    patch: int = 2
    patch_time: int = 1
    temporal: str = "none"  # none | joint | alternating
    window: tuple[int, int, int] | None = None  # odd blocks attend to all tokens behind a mask of windows
    rope: tuple[int, int, int] | None = None  # channels of a head for time, height, width
    theta: float = 10_000.0
    attention: AttentionFn = softmax_attention


# Tables, in numpy as upstream.


def sincos_1d(width: int, positions: np.ndarray) -> np.ndarray:
    omega = 1.0 / 10000 ** (np.arange(width // 2, dtype=np.float64) / (width / 2.0))
    out = np.einsum("m,d->md", positions.reshape(-1).astype(np.float64), omega)
    return np.concatenate([np.sin(out), np.cos(out)], axis=1)


def sincos_2d(width: int, rows: int, columns: int) -> Tensor:
    grid_h = np.arange(rows, dtype=np.float32)
    grid_w = np.arange(columns, dtype=np.float32)
    grid = np.stack(np.meshgrid(grid_w, grid_h), axis=0)  # here w goes first
    table = np.concatenate([sincos_1d(width // 2, grid[0]), sincos_1d(width // 2, grid[1])], axis=1)
    return torch.from_numpy(table).float()[None]


def temporal_sincos(width: int, frames: int) -> Tensor:
    return torch.from_numpy(sincos_1d(width, np.arange(frames))).float()[None]


def timestep_embedding(t: Tensor) -> Tensor:
    half = 128
    freqs = torch.exp(-math.log(10000) * torch.arange(0, half, dtype=torch.float32) / half)
    args = t[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


# Rotary positions: every pair of channels is a complex number, turned by the position on one axis.


def rope_angles(net: Network, positions: list[tuple[int, int, int]]) -> Tensor:
    assert net.rope is not None
    rows = []
    for position in positions:
        angles = []
        for channels, p in zip(net.rope, position, strict=True):
            angles += [p / net.theta ** (2 * i / channels) for i in range(channels // 2)]
        rows.append(angles)
    return torch.tensor(rows, dtype=torch.float64)


def rope_turn(x: Tensor, angles: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


# The network.


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + 1e-6) * gain


def layer_norm(x: Tensor) -> Tensor:
    return fn.layer_norm(x, (x.shape[-1],), eps=1e-6)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return fn.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def attention(state: State, name: str, x: Tensor, net: Network, angles: Tensor | None) -> Tensor:
    B, N, D = x.shape
    q, k, v = (
        linear(state, f"{name}.qkv", x).reshape(B, N, 3, net.heads, D // net.heads).permute(2, 0, 3, 1, 4).unbind(0)
    )
    if f"{name}.q_norm.weight" in state:
        q, k = rms(q, state[f"{name}.q_norm.weight"]), rms(k, state[f"{name}.k_norm.weight"])
    if angles is not None:
        q, k = rope_turn(q, angles), rope_turn(k, angles)
    out = net.attention(q, k, v).transpose(1, 2).reshape(B, N, D)
    return linear(state, f"{name}.proj", out)


def block(state: State, name: str, x: Tensor, c: Tensor, net: Network, angles: Tensor | None) -> Tensor:
    """x (N, L, D), c (N, D)."""
    modulation = linear(state, f"{name}.adaLN_modulation.1", fn.silu(c))
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, dim=1)
    y = attention(state, f"{name}.attn", modulate(layer_norm(x), shift_msa, scale_msa), net, angles)
    x = x + gate_msa.unsqueeze(1) * y
    hidden = linear(state, f"{name}.mlp.fc1", modulate(layer_norm(x), shift_mlp, scale_mlp))
    y = linear(state, f"{name}.mlp.fc2", fn.gelu(hidden, approximate="tanh"))
    return x + gate_mlp.unsqueeze(1) * y


def condition(state: State, time: Tensor, y: Tensor | None) -> Tensor:
    wave = timestep_embedding(time).to(state["t_embedder.mlp.0.weight"].dtype)
    c = linear(state, "t_embedder.mlp.2", fn.silu(linear(state, "t_embedder.mlp.0", wave)))
    if "y_embedder.embedding_table.weight" in state:
        c = c + state["y_embedder.embedding_table.weight"][y]
    if "y_embedder.output_projection.weight" in state:
        c = c + linear(state, "y_embedder.output_projection", y)
    return c


def patchify(state: State, latents: Tensor, net: Network) -> Tensor:
    """(B, C, F, H, W) → (B, frames, rows·columns, D) by the published convolution."""
    weight, bias = state["x_embedder.proj.weight"], state["x_embedder.proj.bias"]
    if weight.ndim == 5:
        x = fn.conv3d(latents, weight, bias, stride=(net.patch_time, net.patch, net.patch))
        return x.flatten(3).permute(0, 2, 3, 1)
    frames = [
        fn.conv2d(frame, weight, bias, stride=net.patch).flatten(2).transpose(1, 2) for frame in latents.unbind(2)
    ]
    return torch.stack(frames, dim=1)


def unpatchify(x: Tensor, net: Network, rows: int, columns: int) -> Tensor:
    """(B, frames, rows·columns, volume·Cout) → (B, Cout, F, H, W), the channel last inside the patch."""
    B, f = x.shape[:2]
    p, t = net.patch, net.patch_time
    x = x.reshape(B, f, rows, columns, t, p, p, -1)
    x = torch.einsum("nfhwtpqc->ncfthpwq", x)
    return x.reshape(B, x.shape[1], f * t, rows * p, columns * p)


def forward(state: State, net: Network, latents: Tensor, time: Tensor, y: Tensor | None = None) -> Tensor:
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    rows, columns = latents.shape[3] // net.patch, latents.shape[4] // net.patch
    x = patchify(state, latents, net)
    B, f, S, D = x.shape
    c = condition(state, time, y)
    if "pos_embed" in state:
        x = x + state["pos_embed"][:, None].to(x.dtype)
    if "pos_embed_spatial" in state:
        x = x + state["pos_embed_spatial"][:, None].to(x.dtype)
        x = x + temporal_sincos(D, f)[:, :, None].to(x.dtype)
    if net.window and "pos_embed" in state:
        x = x + temporal_sincos(D, f)[:, :, None].to(x.dtype)
    places = [(r, w) for r in range(rows) for w in range(columns)]
    for i in range(depth):
        name = f"blocks.{i}"
        if net.temporal == "joint" or (net.window and i % 2 == 1):
            where = [(k, r, w) for k in range(f) for r, w in places]
            angles = rope_angles(net, where) if net.rope else None
            seen = replace(net, attention=within(net.window, where)) if net.window else net
            x = block(state, name, x.reshape(B, f * S, D), c, seen, angles).reshape(B, f, S, D)
        elif net.temporal == "alternating" and i % 2 == 1:
            if i == 1 and "temp_embed" in state:
                x = x + temporal_sincos(D, f)[:, :, None].to(x.dtype)
            angles = rope_angles(net, [(k, 0, 0) for k in range(f)]) if net.rope else None
            x = x.permute(0, 2, 1, 3).reshape(B * S, f, D)
            x = block(state, name, x, c.repeat_interleave(S, dim=0), net, angles)
            x = x.reshape(B, S, f, D).permute(0, 2, 1, 3)
        else:
            angles = rope_angles(net, [(0, r, w) for r, w in places]) if net.rope else None
            x = block(state, name, x.reshape(B * f, S, D), c.repeat_interleave(f, dim=0), net, angles)
            x = x.reshape(B, f, S, D)
    shift, scale = linear(state, "final_layer.adaLN_modulation.1", fn.silu(c)).chunk(2, dim=1)
    x = modulate(layer_norm(x.reshape(B, f * S, D)), shift, scale)
    return unpatchify(linear(state, "final_layer.linear", x).reshape(B, f, S, -1), net, rows, columns)


# States in the official layout, with random values, from the published table of keys and shapes.


def layout(
    depth: int,
    width: int,
    tokens: int,
    *,
    channels: int = 4,
    patch: int = 2,
    out_channels: int = 8,
    label_rows: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a flat DiT or SiT checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, tokens, width),
        "x_embedder.proj.weight": (width, channels, patch, patch),
        "x_embedder.proj.bias": (width,),
        "t_embedder.mlp.0.weight": (width, 256),
        "t_embedder.mlp.0.bias": (width,),
        "t_embedder.mlp.2.weight": (width, width),
        "t_embedder.mlp.2.bias": (width,),
        "final_layer.linear.weight": (patch * patch * out_channels, width),
        "final_layer.linear.bias": (patch * patch * out_channels,),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
        "final_layer.adaLN_modulation.1.bias": (2 * width,),
    }
    if label_rows is not None:
        shapes["y_embedder.embedding_table.weight"] = (label_rows, width)
    linears = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
        "adaLN_modulation.1": (6 * width, width),
    }
    for i in range(depth):
        for name, shape in linears.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32) -> State:
    """Values large enough that every key matters, small enough that activations stay near one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        std = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
        return (torch.randn(shape, generator=generator) * std).to(dtype)

    return {key: 1 + draw(shape) if "_norm" in key else draw(shape) for key, shape in shapes.items()}
