"""The diffusion transformer: mirrors `builders/backbones/transformer.py` and `builders/blocks`.

Legend: `B` batch, `C` channels, `F H W` latent frames, rows, columns, `f` token frames, `S` tokens of a frame,
`D` width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sora_spec.graph.dtypes import DType
from sora_spec.graph.lower.weights import Linear, Weights
from sora_spec.graph.ops.attention import Kernel, attention
from sora_spec.graph.ops.embedding import embedding
from sora_spec.graph.ops.norm import fused_rms_norm, layer_norm, rms_norm
from sora_spec.graph.ops.pointwise import add, add_in_place, add_scalar, cast_to, gelu, mul, silu, sub, unary
from sora_spec.graph.ops.views import cat, chunk, narrow, rearrange, unbind, unsqueeze
from sora_spec.graph.recompute import checkpoint
from sora_spec.graph.tensor import Tensor
from sora_spec.shapes import Shapes, derive_shapes

if TYPE_CHECKING:
    from sora_spec.schema.backbone import Temporal, Transformer
    from sora_spec.schema.condition import ClassCondition, TextCondition
    from sora_spec.schema.spec import Spec

Axis = Literal["space", "time", "joint"]
Rotation = tuple[Tensor, Tensor]

LONGEST = 512
"""Latent frames that the tables of time reach at least."""
WAVE = 256
"""Channels of the sinusoid of time."""


def block_axes(temporal: Temporal, depth: int) -> tuple[Axis, ...]:
    """Axis of each block's attention."""
    match temporal.kind:
        case "none":
            return ("space",) * depth
        case "joint":
            return ("joint",) * depth
        case "alternating":
            return tuple("time" if i % 2 else "space" for i in range(depth))
        case kind:
            raise AssertionError(kind)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift."""
    return add_in_place(mul(x, add_scalar(scale)), shift)


def gated(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate·update."""
    return add_in_place(mul(gate, update), x)


class TimeEmbedding:
    """Sinusoid and two linear layers."""

    def __init__(self, weights: Weights, width: int) -> None:
        self.rates = weights.buffer("time_embed.rates", (WAVE // 2,))
        self.fc1 = Linear(weights, "time_embed.fc1", WAVE, width)
        self.fc2 = Linear(weights, "time_embed.fc2", width, width)

    def __call__(self, time: Tensor) -> Tensor:
        """(B,) → (B, D)."""
        angles = mul(unsqueeze(time, 1), unsqueeze(self.rates, 0))
        wave = cat([unary("cos", angles), unary("sin", angles)], -1)
        return self.fc2(silu(self.fc1(cast_to(wave, self.fc1.weight.dtype))))


class LabelEmbedding:
    """Rows of a table by class."""

    def __init__(self, weights: Weights, condition: ClassCondition, width: int) -> None:
        self.table = weights.parameter("condition.table.weight", (condition.classes + (condition.dropout > 0), width))

    def __call__(self, label: Tensor) -> Tensor:
        """(B,) → (B, D)."""
        return embedding(self.table, label)


class PooledText:
    """One vector of a prompt, projected."""

    def __init__(self, weights: Weights, condition: TextCondition, width: int) -> None:
        self.proj = Linear(weights, "condition.proj", condition.width, width)

    def __call__(self, pooled: Tensor) -> Tensor:
        """(B, width) → (B, D)."""
        return self.proj(cast_to(pooled, self.proj.weight.dtype))


class RmsNorm:
    """`nn.RMSNorm` with a gain."""

    def __init__(self, weights: Weights, name: str, width: int) -> None:
        self.fused = weights.policy.fused_rms_norm
        self.weight = weights.parameter(f"{name}.weight", (width,))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        return fused_rms_norm(x, self.weight) if self.fused else rms_norm(x, self.weight)


class Attention:
    """Multi-head self-attention of (N, L, D)."""

    def __init__(self, weights: Weights, width: int, heads: int, qk_norm: bool) -> None:
        self.heads = heads
        self.kernel: Kernel = weights.policy.attention
        self.qkv = Linear(weights, "attention.qkv", width, 3 * width)
        self.q_norm = RmsNorm(weights, "attention.q_norm", width // heads) if qk_norm else None
        self.k_norm = RmsNorm(weights, "attention.k_norm", width // heads) if qk_norm else None
        self.out = Linear(weights, "attention.out", width, width)

    def __call__(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """(N, L, D) → (N, L, D)."""
        q, k, v = [rearrange(part, "n l (h d) -> n h l d", h=self.heads) for part in chunk(self.qkv(x), 3, -1)]
        q, k = self.q_norm(q) if self.q_norm else q, self.k_norm(k) if self.k_norm else k
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        x = attention(q, k, v, self.kernel)
        return self.out(rearrange(x, "n h l d -> n l (h d)"))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the channel pairs (i, i + d/2)."""
    cos, sin = rotation
    first, second = chunk(x, 2, -1)
    return cat([sub(mul(first, cos), mul(second, sin)), add(mul(second, cos), mul(first, sin))], -1)


class Block:
    """The DiT block with adaLN-Zero."""

    def __init__(self, weights: Weights, axis: Axis, backbone: Transformer) -> None:
        self.tape = weights.tape
        self.axis: Axis = axis
        width, hidden = backbone.width, int(backbone.width * backbone.mlp_ratio)
        with self.tape.enter("attention", ("backbone", "heads")):
            self.attention = Attention(weights, width, backbone.heads, backbone.qk_norm)
        with self.tape.enter("mlp", ("backbone", "mlp_ratio")):
            self.fc1 = Linear(weights, "mlp.fc1", width, hidden)
            self.fc2 = Linear(weights, "mlp.fc2", hidden, width)
        with self.tape.enter("modulation", ("backbone", "conditioning")):
            self.modulation = Linear(weights, "modulation", width, 6 * width)

    def __call__(self, x: Tensor, c: Tensor, rotation: Rotation | None) -> Tensor:
        """(B, f, S, D) → (B, f, S, D) under `c` (B, D)."""
        with self.tape.enter("modulation", ("backbone", "conditioning")):
            modulation = rearrange(self.modulation(c), "b d -> b 1 1 d")
            shift1, scale1, gate1, shift2, scale2, gate2 = chunk(modulation, 6, -1)
        with self.tape.enter("attention", ("backbone", "heads")):
            x = gated(x, gate1, self.attend(modulate(layer_norm(x), shift1, scale1), rotation))
        with self.tape.enter("mlp", ("backbone", "mlp_ratio")):
            return gated(x, gate2, self.mlp(modulate(layer_norm(x), shift2, scale2)))

    def mlp(self, x: Tensor) -> Tensor:
        """Linear, GELU, linear."""
        return self.fc2(gelu(self.fc1(x)))

    def attend(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """Attention along this block's axis."""
        frames, places = x.shape[1:3]
        match self.axis:
            case "space":
                y = self.attention(rearrange(x, "b f s d -> (b f) s d"), rotation)
                return rearrange(y, "(b f) s d -> b f s d", f=frames)
            case "time":
                y = self.attention(rearrange(x, "b f s d -> (b s) f d"), rotation)
                return rearrange(y, "(b s) f d -> b f s d", s=places)
            case "joint":
                y = self.attention(rearrange(x, "b f s d -> b (f s) d"), rotation)
                return rearrange(y, "b (f s) d -> b f s d", s=places)


class PatchOut:
    """The final layer and unpatchify."""

    def __init__(self, weights: Weights, width: int, shapes: Shapes, spec: Spec) -> None:
        self.patch, self.columns = spec.patch, shapes.grid[2]
        self.proj = Linear(
            weights, "patch_out.proj", width, spec.patch.time * spec.patch.space**2 * shapes.out_channels
        )
        self.modulation = Linear(weights, "patch_out.modulation", width, 2 * width)

    def __call__(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, f, S, D) → (B, Cout, F, H, W)."""
        shift, scale = chunk(rearrange(self.modulation(c), "b d -> b 1 1 d"), 2, -1)
        return rearrange(
            self.proj(modulate(layer_norm(x), shift, scale)),
            "b f (h w) (t p q c) -> b c (f t) (h p) (w q)",
            w=self.columns,
            t=self.patch.time,
            p=self.patch.space,
            q=self.patch.space,
        )


class Rope3d:
    """Rotary tables over time and space."""

    def __init__(self, weights: Weights, half: int, grid: tuple[int, int, int]) -> None:
        frames, rows, columns = grid
        self.space_table = weights.buffer("rope.space_table", (rows * columns, 2, half))
        self.time_table = weights.buffer("rope.time_table", (frames, 2, half))

    def rotation(self, axis: Axis, frames: int, dtype: DType) -> Rotation:
        """Cosines and sines of one axis."""
        if axis == "joint":
            return self.joint(frames, dtype)
        table = self.space_table if axis == "space" else narrow(self.time_table, 0, 0, frames)
        cos, sin = unbind(cast_to(table, dtype), 1)
        return cos, sin

    def joint(self, frames: int, dtype: DType) -> Rotation:
        """For attention over all tokens."""
        space_cos, space_sin = self.rotation("space", frames, dtype)
        time_cos, time_sin = self.rotation("time", frames, dtype)
        cos = mul(unsqueeze(time_cos, 1), unsqueeze(space_cos, 0))
        sin = add(unsqueeze(time_sin, 1), unsqueeze(space_sin, 0))
        return rearrange(cos, "f s d -> (f s) d"), rearrange(sin, "f s d -> (f s) d")


class TransformerDenoiser:
    """Patches, blocks, patches. `axes`: of the blocks that are run, which may be fewer than the spec's."""

    def __init__(self, weights: Weights, spec: Spec, axes: tuple[Axis, ...]) -> None:
        backbone = spec.backbone
        assert backbone.kind == "transformer"
        self.tape, self.axes, self.spec = weights.tape, axes, spec
        self.shapes = shapes = derive_shapes(spec)
        self.recomputed: frozenset[int] = frozenset()
        self.selected: tuple[str, ...] = ()
        width, patch = backbone.width, spec.patch
        with self.tape.enter("patch_in", ("patch",)):
            self.patch_in = Linear(weights, "patch_in.proj", shapes.channels * patch.time * patch.space**2, width)
        with self.tape.enter("time_embed", ("backbone", "width")):
            self.time_embed = TimeEmbedding(weights, width)
        with self.tape.enter("condition_embed", ("condition",)):
            self.condition_embed = self._condition(weights, width)
        with self.tape.enter("position", ("backbone", "position")):
            self._positions(weights, backbone)
        self.blocks: list[Block] = []
        for index, axis in enumerate(axes):
            with self.tape.enter(f"blocks[{index}]", ("backbone", "depth"), index):
                self.blocks.append(Block(weights, axis, backbone))
        with self.tape.enter("patch_out", ("patch",)):
            self.patch_out = PatchOut(weights, width, shapes, spec)

    def _condition(self, weights: Weights, width: int) -> LabelEmbedding | PooledText | None:
        condition = self.spec.condition
        if condition.kind == "class":
            return LabelEmbedding(weights, condition, width)
        return PooledText(weights, condition, width) if condition.kind == "text" else None

    def _positions(self, weights: Weights, backbone: Transformer) -> None:
        frames, rows, columns = self.shapes.grid
        longest = max(LONGEST // self.spec.patch.time, frames)
        sincos, moves = backbone.position.kind == "sincos", set(self.axes) != {"space"}
        kind, width = weights.policy.weights, backbone.width
        self.pos_embed = weights.buffer("pos_embed", (1, rows * columns, width), kind) if sincos else None
        self.time_table = weights.buffer("time_table", (1, longest, width)) if sincos and moves else None
        self.rope = None
        if backbone.position.kind == "rope":
            self.rope = Rope3d(weights, width // backbone.heads // 2, (longest, rows, columns))

    def __call__(self, latents: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """(B, C, F, H, W), (B,) and a condition → (B, Cout, F, H, W)."""
        enter = self.tape.enter
        with enter("patch_in"):
            x = self.patchify(latents)
        c = silu(self.embed(time, condition))
        with enter("position"):
            x = self.add_positions(x)
            rotations = self.rotations(x.shape[1], x.dtype)
        for index, block in enumerate(self.blocks):
            with enter(f"blocks[{index}]"):
                if index == self.first_temporal_block:
                    x = add(x, self.frame_positions(x))
                x = self.run_block(index, block, x, c, rotations.get(self.axes[index]))
        with enter("patch_out"):
            return cast_to(self.patch_out(x, c), latents.dtype)

    def run_block(self, index: int, block: Block, x: Tensor, c: Tensor, rotation: Rotation | None) -> Tensor:
        """One block, or its checkpointed form."""
        if index in self.recomputed:
            return checkpoint(self.tape, block, x, c, rotation, selected=self.selected)
        return block(x, c, rotation)

    def patchify(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, f, S, D)."""
        patch = self.spec.patch
        boxes = rearrange(
            cast_to(latents, self.patch_in.weight.dtype),
            "b c (f t) (h p) (w q) -> b f (h w) (c t p q)",
            t=patch.time,
            p=patch.space,
            q=patch.space,
        )
        return self.patch_in(boxes)

    def embed(self, time: Tensor, condition: Tensor | None) -> Tensor:
        """Sum of time and condition."""
        with self.tape.enter("time_embed"):
            c = self.time_embed(time)
        if self.condition_embed is None:
            return c
        assert condition is not None
        with self.tape.enter("condition_embed"):
            return add(c, self.condition_embed(condition))

    def add_positions(self, x: Tensor) -> Tensor:
        """Add the fixed tables."""
        if self.pos_embed is None:
            return x
        table = unsqueeze(cast_to(self.pos_embed, x.dtype), 1)
        return add(x, add(table, self.frame_positions(x)) if "joint" in self.axes else table)

    @property
    def first_temporal_block(self) -> int | None:
        """The block before which the table over frames is added."""
        return self.axes.index("time") if self.time_table is not None and "time" in self.axes else None

    def frame_positions(self, x: Tensor) -> Tensor:
        """Table over the frames."""
        assert self.time_table is not None
        return cast_to(unsqueeze(narrow(self.time_table, 1, 0, x.shape[1]), 2), x.dtype)

    def rotations(self, frames: int, dtype: DType) -> dict[Axis, Rotation]:
        """Rotary tables by axis."""
        if self.rope is None:
            return {}
        return {axis: self.rope.rotation(axis, frames, dtype) for axis in dict.fromkeys(self.axes)}
