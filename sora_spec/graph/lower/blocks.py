"""The blocks of the diffusion transformer: mirrors `builders/blocks/adaln.py` and `builders/blocks/attention.py`.

Legend: `B` batch, `f` token frames, `S` tokens of a frame, `D` width, `M` text tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sora_spec.graph.eager.ops.attention import Kernel, attention
from sora_spec.graph.eager.ops.norm import affine_layer_norm, fused_rms_norm, layer_norm, rms_norm
from sora_spec.graph.eager.ops.pointwise import add, add_in_place, add_scalar, gelu, mul
from sora_spec.graph.eager.ops.views import chunk, rearrange, reshape
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.sequence import Rotation, SequenceGroup, rotate
from sora_spec.graph.lower.weights import Linear, Weights

if TYPE_CHECKING:
    from sora_spec.graph.lower.families import Axis
    from sora_spec.language.schema.backbone import Conditioning, Transformer

Modulation = Literal["zero", "single"]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift."""
    return add_in_place(mul(x, add_scalar(scale)), shift)


def gated(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate·update."""
    return add_in_place(mul(gate, update), x)


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


class LayerNorm:
    """`nn.LayerNorm` with gain and bias."""

    def __init__(self, weights: Weights, name: str, width: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (width,))
        self.bias = weights.parameter(f"{name}.bias", (width,))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        return affine_layer_norm(x, self.weight, self.bias)


class _Heads:
    """What both attentions do to queries, keys and values before they meet."""

    q_norm: RmsNorm | None
    k_norm: RmsNorm | None

    def __init__(self, heads: int, over: Literal["head", "width"] | None) -> None:
        self.heads, self.over = heads, over

    def rms_norm(self, weights: Weights, name: str, width: int) -> RmsNorm | None:
        """Over the channels of a head, or of all heads."""
        if self.over is None:
            return None
        return RmsNorm(weights, name, width // self.heads if self.over == "head" else width)

    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys after their norms."""
        assert self.q_norm is not None
        assert self.k_norm is not None
        return self.q_norm(q), self.k_norm(k)

    def split(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, L, D) each → (N, heads, L, D / heads)."""
        if self.over == "width":
            q, k = self.normed(q, k)
        q, k, v = (rearrange(part, "n l (h d) -> n h l d", h=self.heads) for part in (q, k, v))
        return (*self.normed(q, k), v) if self.over == "head" else (q, k, v)


class Attention(_Heads):
    """Multi-head self-attention of (N, L, D)."""

    def __init__(self, weights: Weights, name: str, backbone: Transformer, across_frames: bool = False) -> None:
        width = backbone.width
        super().__init__(backbone.heads, backbone.qk_norm_over if backbone.qk_norm else None)
        self.kernel: Kernel = weights.policy.across_frames if across_frames else weights.policy.attention
        self.qkv = Linear(weights, f"{name}.qkv", width, 3 * width)
        self.q_norm = self.rms_norm(weights, f"{name}.q_norm", width)
        self.k_norm = self.rms_norm(weights, f"{name}.k_norm", width)
        self.out = Linear(weights, f"{name}.out", width, width)

    def __call__(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """(N, L, D) → (N, L, D)."""
        q, k, v = self.split(*chunk(self.qkv(x), 3, -1))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        x = attention(q, k, v, self.kernel)
        return self.out(rearrange(x, "n h l d -> n l (h d)"))


class CrossAttention(_Heads):
    """Attention of (B, L, D) tokens to (B, M, D) tokens of a text."""

    def __init__(self, weights: Weights, backbone: Transformer) -> None:
        width, text = backbone.width, backbone.conditioning
        assert text.kind == "cross_attention"
        super().__init__(backbone.heads, backbone.qk_norm_over if text.qk_norm else None)
        self.kernel: Kernel = weights.policy.attention
        self.norm = LayerNorm(weights, "cross_norm", width) if text.norm else None
        self.q = Linear(weights, "cross.q", width, width)
        self.kv = Linear(weights, "cross.kv", width, 2 * width)
        self.q_norm = self.rms_norm(weights, "cross.q_norm", width)
        self.k_norm = self.rms_norm(weights, "cross.k_norm", width)
        self.out = Linear(weights, "cross.out", width, width)

    def __call__(self, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        q, k, v = self.split(self.q(x), *chunk(self.kv(context), 2, -1))
        y = attention(q, k, v, self.kernel, bias)
        return self.out(rearrange(y, "n h l d -> n l (h d)"))


class Block:
    """The DiT block with adaLN-Zero or adaLN-single, and cross-attention where there are text tokens."""

    def __init__(self, weights: Weights, axis: Axis, backbone: Transformer, group: SequenceGroup | None = None) -> None:
        self.tape = weights.tape
        self.axis: Axis = axis
        self.group = group
        width, hidden = backbone.width, int(backbone.width * backbone.mlp_ratio)
        with self.tape.enter("attention", ("backbone", "heads")):
            self.attention = Attention(weights, "attention", backbone, across_frames=axis == "time")
        with self.tape.enter("temporal", ("temporal",)):
            again = axis == "factorized"
            self.temporal = Attention(weights, "temporal", backbone, across_frames=True) if again else None
        attends = backbone.conditioning.kind == "cross_attention"
        with self.tape.enter("cross", ("backbone", "conditioning")):
            self.cross = CrossAttention(weights, backbone) if attends else None
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
        context_bias: Tensor | None = None,
        frame_table: Tensor | None = None,
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
                read = x if frame_table is None else add(x, frame_table)
                x = gated(x, gate1, self.attend("time", self.temporal, read, time_rotation))
                del read
        if self.cross is not None:
            assert context is not None
            with self.tape.enter("cross", ("backbone", "conditioning")):
                x = add(x, self.attend_text(x, context, context_bias))
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

    def attend_text(self, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """All tokens of a clip to all of its text."""
        assert self.cross is not None
        asking = x if self.cross.norm is None else self.cross.norm(x)
        y = self.cross(rearrange(asking, "b f s d -> b (f s) d"), context, bias)
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
