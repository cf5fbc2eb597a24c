"""The diffusion transformer: mirrors `builders/backbones/transformer.py` and `builders/blocks`.

Legend: `B` batch, `C` channels, `F H W` latent frames, rows, columns, `f` token frames, `S` tokens of a frame,
`D` width, `M` text tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sora_spec.graph.dtypes import DType
from sora_spec.graph.lower.sequence import Rotation, SequenceGroup, rotate, sequence_group
from sora_spec.graph.lower.weights import Linear, Weights
from sora_spec.graph.ops.attention import Kernel, attention
from sora_spec.graph.ops.embedding import embedding
from sora_spec.graph.ops.norm import fused_rms_norm, layer_norm, rms_norm
from sora_spec.graph.ops.pointwise import add, add_in_place, add_scalar, cast_to, gelu, mul, silu, unary
from sora_spec.graph.ops.views import cat, chunk, narrow, rearrange, reshape, unbind, unsqueeze
from sora_spec.graph.recompute import checkpoint
from sora_spec.graph.tensor import Tensor
from sora_spec.shapes import Shapes, derive_shapes

if TYPE_CHECKING:
    from sora_spec.schema.backbone import Conditioning, Temporal, Transformer
    from sora_spec.schema.condition import ClassCondition, TextCondition
    from sora_spec.schema.spec import Spec

Axis = Literal["space", "time", "joint", "factorized"]
Modulation = Literal["zero", "single"]

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
        case "factorized":
            return ("factorized",) * depth
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


class TextTokens:
    """The tokens of a prompt: linear, GELU, linear."""

    def __init__(self, weights: Weights, condition: TextCondition, width: int) -> None:
        self.fc1 = Linear(weights, "condition.fc1", condition.width, width)
        self.fc2 = Linear(weights, "condition.fc2", width, width)

    def __call__(self, features: Tensor) -> Tensor:
        """(B, M, width) → (B, M, D)."""
        return self.fc2(gelu(self.fc1(cast_to(features, self.fc1.weight.dtype))))


def modulation_of(conditioning: Conditioning) -> Modulation:
    """adaLN-Zero or adaLN-single."""
    if conditioning.kind == "cross_attention":
        return conditioning.modulation
    return "zero" if conditioning.kind == "adaln_zero" else "single"


class ModulationTable:
    """What a block adds to the modulation that all blocks share."""

    def __init__(self, weights: Weights, parts: int, width: int) -> None:
        self.weight = weights.parameter("modulation.weight", (parts, width))

    def __call__(self, shared: Tensor) -> Tensor:
        """(B, D) or (B, parts·D) → (B, parts·D)."""
        width = self.weight.shape[1]
        parts = reshape(shared, (shared.shape[0], shared.shape[1] // width, width))
        return rearrange(add(self.weight, parts), "b p d -> b (p d)")


def block_modulation(weights: Weights, kind: Modulation, parts: int, width: int) -> Linear | ModulationTable:
    """Shifts, scales and gates of a block or of the head."""
    return (
        Linear(weights, "modulation", width, parts * width)
        if kind == "zero"
        else ModulationTable(weights, parts, width)
    )


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

    def __init__(self, weights: Weights, name: str, width: int, heads: int, qk_norm: bool) -> None:
        self.heads = heads
        self.kernel: Kernel = weights.policy.attention
        self.qkv = Linear(weights, f"{name}.qkv", width, 3 * width)
        self.q_norm = RmsNorm(weights, f"{name}.q_norm", width // heads) if qk_norm else None
        self.k_norm = RmsNorm(weights, f"{name}.k_norm", width // heads) if qk_norm else None
        self.out = Linear(weights, f"{name}.out", width, width)

    def __call__(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """(N, L, D) → (N, L, D)."""
        q, k, v = [rearrange(part, "n l (h d) -> n h l d", h=self.heads) for part in chunk(self.qkv(x), 3, -1)]
        q, k = self.q_norm(q) if self.q_norm else q, self.k_norm(k) if self.k_norm else k
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        x = attention(q, k, v, self.kernel)
        return self.out(rearrange(x, "n h l d -> n l (h d)"))


class CrossAttention:
    """Attention of (B, L, D) tokens to (B, M, D) tokens of a text."""

    def __init__(self, weights: Weights, width: int, heads: int) -> None:
        self.heads = heads
        self.kernel: Kernel = weights.policy.attention
        self.q = Linear(weights, "cross.q", width, width)
        self.kv = Linear(weights, "cross.kv", width, 2 * width)
        self.out = Linear(weights, "cross.out", width, width)

    def __call__(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        q = rearrange(self.q(x), "n l (h d) -> n h l d", h=self.heads)
        k, v = [rearrange(part, "n m (h d) -> n h m d", h=self.heads) for part in chunk(self.kv(context), 2, -1)]
        return self.out(rearrange(attention(q, k, v, self.kernel), "n h l d -> n l (h d)"))


class Block:
    """The DiT block with adaLN-Zero or adaLN-single, and cross-attention where there are text tokens."""

    def __init__(self, weights: Weights, axis: Axis, backbone: Transformer, group: SequenceGroup | None = None) -> None:
        self.tape = weights.tape
        self.axis: Axis = axis
        self.group = group
        width, hidden = backbone.width, int(backbone.width * backbone.mlp_ratio)
        with self.tape.enter("attention", ("backbone", "heads")):
            self.attention = Attention(weights, "attention", width, backbone.heads, backbone.qk_norm)
        with self.tape.enter("temporal", ("temporal",)):
            again = axis == "factorized"
            self.temporal = Attention(weights, "temporal", width, backbone.heads, backbone.qk_norm) if again else None
        attends = backbone.conditioning.kind == "cross_attention"
        with self.tape.enter("cross", ("backbone", "conditioning")):
            self.cross = CrossAttention(weights, width, backbone.heads) if attends else None
        with self.tape.enter("mlp", ("backbone", "mlp_ratio")):
            self.fc1 = Linear(weights, "mlp.fc1", width, hidden)
            self.fc2 = Linear(weights, "mlp.fc2", hidden, width)
        with self.tape.enter("modulation", ("backbone", "conditioning")):
            self.modulation = block_modulation(weights, modulation_of(backbone.conditioning), 6, width)

    def __call__(
        self,
        x: Tensor,
        c: Tensor,
        rotation: Rotation | None = None,
        context: Tensor | None = None,
        time_rotation: Rotation | None = None,
    ) -> Tensor:
        """(B, f, S, D) → (B, f, S, D) under `c` (B, D) or (B, 6·D)."""
        with self.tape.enter("modulation", ("backbone", "conditioning")):
            modulation = rearrange(self.modulation(c), "b d -> b 1 1 d")
            shift1, scale1, gate1, shift2, scale2, gate2 = chunk(modulation, 6, -1)
        with self.tape.enter("attention", ("backbone", "heads")):
            x = gated(
                x, gate1, self.attend(self.axis, self.attention, modulate(layer_norm(x), shift1, scale1), rotation)
            )
        if self.temporal is not None:
            with self.tape.enter("temporal", ("temporal",)):
                x = gated(x, gate1, self.attend("time", self.temporal, x, time_rotation))
        if self.cross is not None:
            assert context is not None
            with self.tape.enter("cross", ("backbone", "conditioning")):
                x = add(x, self.attend_text(x, context))
        with self.tape.enter("mlp", ("backbone", "mlp_ratio")):
            return gated(x, gate2, self.mlp(modulate(layer_norm(x), shift2, scale2)))

    def attend(self, axis: Axis, attention: Attention, x: Tensor, rotation: Rotation | None) -> Tensor:
        """Attention along an axis, shared by the ranks of a sequence group if there is one."""
        if self.group is not None:
            return self.group.attend(axis, attention, x, rotation)
        return attend(axis, attention, x, rotation)

    def mlp(self, x: Tensor) -> Tensor:
        """Linear, GELU, linear."""
        return self.fc2(gelu(self.fc1(x)))

    def attend_text(self, x: Tensor, context: Tensor) -> Tensor:
        """All tokens of a clip to all of its text."""
        assert self.cross is not None
        y = self.cross(rearrange(x, "b f s d -> b (f s) d"), context)
        return rearrange(y, "b (f s) d -> b f s d", f=x.shape[1])


def attend(axis: Axis, attention: Attention, x: Tensor, rotation: Rotation | None) -> Tensor:
    """Attention along an axis."""
    frames, places = x.shape[1:3]
    match axis:
        case "space" | "factorized":
            y = attention(rearrange(x, "b f s d -> (b f) s d"), rotation)
            return rearrange(y, "(b f) s d -> b f s d", f=frames)
        case "time":
            y = attention(rearrange(x, "b f s d -> (b s) f d"), rotation)
            return rearrange(y, "(b s) f d -> b f s d", s=places)
        case "joint":
            y = attention(rearrange(x, "b f s d -> b (f s) d"), rotation)
            return rearrange(y, "b (f s) d -> b f s d", s=places)


class PatchOut:
    """The final layer and unpatchify."""

    def __init__(
        self, weights: Weights, width: int, shapes: Shapes, spec: Spec, group: SequenceGroup | None = None
    ) -> None:
        self.patch, self.columns = spec.patch, shapes.grid[2]
        self.proj = Linear(
            weights, "patch_out.proj", width, spec.patch.time * spec.patch.space**2 * shapes.out_channels
        )
        assert spec.backbone.kind == "transformer"
        self.modulation = block_modulation(weights, modulation_of(spec.backbone.conditioning), 2, width)
        self.group = group

    def __call__(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, f, S, D) → (B, Cout, F, H, W)."""
        shift, scale = chunk(rearrange(self.modulation(c), "b d -> b 1 1 d"), 2, -1)
        x = self.proj(modulate(layer_norm(x), shift, scale))
        return rearrange(
            x if self.group is None else self.group.join(x),
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
        table = narrow(self.time_table, 0, 0, frames) if axis == "time" else self.space_table
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
        self.group = sequence_group(weights.policy.sequence, shapes.grid, backbone.heads)
        width, patch = backbone.width, spec.patch
        with self.tape.enter("patch_in", ("patch",)):
            self.patch_in = Linear(weights, "patch_in.proj", shapes.channels * patch.time * patch.space**2, width)
        with self.tape.enter("time_embed", ("backbone", "width")):
            self.time_embed = TimeEmbedding(weights, width)
        with self.tape.enter("condition_embed", ("condition",)):
            self.condition_embed = self._condition(weights, width)
        with self.tape.enter("position", ("backbone", "position")):
            self._positions(weights, backbone)
        with self.tape.enter("modulation", ("backbone", "conditioning")):
            shared = modulation_of(backbone.conditioning) == "single"
            self.modulation = Linear(weights, "modulation", width, 6 * width) if shared else None
        self.blocks: list[Block] = []
        for index, axis in enumerate(axes):
            with self.tape.enter(f"blocks[{index}]", ("backbone", "depth"), index):
                self.blocks.append(Block(weights, axis, backbone, self.group))
        with self.tape.enter("patch_out", ("patch",)):
            self.patch_out = PatchOut(weights, width, shapes, spec, self.group)

    def _condition(self, weights: Weights, width: int) -> LabelEmbedding | PooledText | TextTokens | None:
        condition = self.spec.condition
        if condition.kind == "none":
            return None
        if condition.kind == "class":
            return LabelEmbedding(weights, condition, width)
        return PooledText(weights, condition, width) if condition.pooled else TextTokens(weights, condition, width)

    def _positions(self, weights: Weights, backbone: Transformer) -> None:
        frames, rows, columns = self.shapes.grid
        longest = max(LONGEST // self.spec.patch.time, frames)
        sincos, moves = backbone.position.kind == "sincos", set(self.axes) != {"space"}
        kind, width = weights.policy.weights, backbone.width
        self.pos_embed = None
        if sincos:
            self.pos_embed = weights.buffer("pos_embed", (1, rows * columns, width), kind, persistent=True)
        self.time_table = weights.buffer("time_table", (1, longest, width)) if sincos and moves else None
        self.rope = None
        if backbone.position.kind == "rope":
            self.rope = Rope3d(weights, width // backbone.heads // 2, (longest, rows, columns))

    def __call__(self, latents: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """(B, C, F, H, W), (B,) and a condition → (B, Cout, F, H, W)."""
        enter = self.tape.enter
        with enter("patch_in"):
            x = self.patchify(latents)
        text = self.text_tokens(condition)
        c, shared = self.modulations(self.embed(time, condition))
        with enter("position"):
            x = self.add_positions(x)
            rotations = self.rotations(x.shape[1], x.dtype)
            x = x if self.group is None else self.group.split(x)
        for index in range(len(self.blocks)):
            with enter(f"blocks[{index}]"):
                if index == self.first_temporal_block:
                    x = add(x, self.frame_positions(x))
                x = self.run_block(index, x, shared, rotations, text)
        with enter("patch_out"):
            return cast_to(self.patch_out(x, c), latents.dtype)

    def run_block(
        self, index: int, x: Tensor, c: Tensor, rotations: dict[Axis, Rotation], text: Tensor | None
    ) -> Tensor:
        """One block, or its checkpointed form."""
        block, over_time = self.blocks[index], rotations.get("time")
        rotation = rotations.get(self.axes[index])
        if index in self.recomputed:
            return checkpoint(self.tape, block, x, c, rotation, text, over_time, selected=self.selected)
        return block(x, c, rotation, text, over_time)

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
        """Sum of time and of a condition that is one vector."""
        with self.tape.enter("time_embed"):
            c = self.time_embed(time)
        if self.condition_embed is None or isinstance(self.condition_embed, TextTokens):
            return c
        assert condition is not None
        with self.tape.enter("condition_embed"):
            return add(c, self.condition_embed(condition))

    def text_tokens(self, condition: Tensor | None) -> Tensor | None:
        """The text that blocks attend to."""
        if not isinstance(self.condition_embed, TextTokens):
            return None
        assert condition is not None
        with self.tape.enter("condition_embed"):
            return self.condition_embed(condition)

    def modulations(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """What modulates the head, and what modulates the blocks."""
        with self.tape.enter("modulation"):
            if self.modulation is None:
                active = silu(c)
                return active, active
            return c, self.modulation(silu(c))

    def add_positions(self, x: Tensor) -> Tensor:
        """Add the fixed tables."""
        if self.pos_embed is None:
            return x
        table = unsqueeze(cast_to(self.pos_embed, x.dtype), 1)
        return add(x, add(table, self.frame_positions(x)) if self.axes[0] in ("joint", "factorized") else table)

    @property
    def first_temporal_block(self) -> int | None:
        """The block before which the table over frames is added."""
        return self.axes.index("time") if self.time_table is not None and "time" in self.axes else None

    def frame_positions(self, x: Tensor) -> Tensor:
        """Table over the frames."""
        assert self.time_table is not None
        frames = self.shapes.grid[0]
        table = cast_to(unsqueeze(narrow(self.time_table, 1, 0, frames), 2), x.dtype)
        return table if self.group is None or x.shape[1] == frames else self.group.rows(table)

    def rotations(self, frames: int, dtype: DType) -> dict[Axis, Rotation]:
        """Rotary tables by axis."""
        if self.rope is None:
            return {}
        axes = dict.fromkeys((*self.axes, "time") if "factorized" in self.axes else self.axes)
        return {axis: self.rope.rotation(axis, frames, dtype) for axis in axes}
