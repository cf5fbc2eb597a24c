"""The diffusion transformer: mirrors `builders/backbones/transformer.py`; its blocks are in `blocks`.

Legend: `B` batch, `C` channels, `F H W` latent frames, rows, columns, `f` token frames, `S` tokens of a frame,
`D` width, `M` text tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops.norm import layer_norm
from sora_spec.graph.eager.ops.pointwise import add, cast_to, made_from_nothing, mul, select, silu, unary
from sora_spec.graph.eager.ops.views import chunk, narrow, rearrange, unbind, unsqueeze
from sora_spec.graph.eager.recompute import checkpoint
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.blocks import Block, Rotation, block_modulation, modulate, modulation_of
from sora_spec.graph.lower.embeddings import LabelEmbedding, PooledText, TextTokens, TimeEmbedding
from sora_spec.graph.lower.sequence import SequenceGroup, sequence_group
from sora_spec.graph.lower.weights import Linear, Weights
from sora_spec.language.facts import temporal_facts
from sora_spec.language.shapes import Shapes, derive_shapes
from sora_spec.recipe.sampling import longest_clip

if TYPE_CHECKING:
    from sora_spec.graph.lower.families import Axis
    from sora_spec.language.schema.backbone import Transformer
    from sora_spec.language.schema.spec import Spec


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
        self.frames_enter = temporal_facts(spec.temporal).frames_enter
        self.shapes = shapes = derive_shapes(spec)
        self.recomputed: frozenset[int] = frozenset()
        self.selected: tuple[str, ...] = ()
        self.group = sequence_group(weights.policy.sequence, shapes.grid, backbone.heads)
        width, patch = backbone.width, spec.patch
        with self.tape.enter("patch_in", ("patch",)):
            self.patch_in = Linear(weights, "patch_in.proj", shapes.channels * patch.time * patch.space**2, width)
        with self.tape.enter("time_embed", ("backbone", "width")):
            self.time_embed = TimeEmbedding(weights, width, backbone.time_input)
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
        longest = longest_clip(self.spec.patch.time, frames)
        sincos, moves = backbone.position.kind == "sincos", set(self.axes) != {"space"}
        kind, width = weights.policy.weights, backbone.width
        self.pos_embed = None
        if sincos:
            self.pos_embed = weights.buffer("pos_embed", (1, rows * columns, width), kind, persistent=True)
        self.time_table = weights.buffer("time_table", (1, longest, width)) if sincos and moves else None
        self.rope = None
        if backbone.position.kind == "rope":
            self.rope = Rope3d(weights, width // backbone.heads // 2, (longest, rows, columns))

    def __call__(self, latents: Tensor, time: Tensor, condition: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """(B, C, F, H, W), (B,), a condition and the mask of its tokens → (B, Cout, F, H, W)."""
        enter = self.tape.enter
        with enter("patch_in"):
            x = self.patchify(latents)
        text = self.text_tokens(condition)
        bias = None if mask is None or text is None else self.text_bias(mask, text)
        c, shared = self.modulations(self.embed(time, condition))
        with enter("position"):
            x = self.add_positions(x)
            rotations = self.rotations(x.shape[1], x.dtype)
            x = x if self.group is None else self.group.split(x)
        for index in range(len(self.blocks)):
            with enter(f"blocks[{index}]"):
                if index == self.first_temporal_block:
                    x = add(x, self.frame_positions(x))
                x = self.run_block(index, x, shared, rotations, text, bias)
        with enter("patch_out"):
            return cast_to(self.patch_out(x, c), latents.dtype)

    def run_block(
        self,
        index: int,
        x: Tensor,
        c: Tensor,
        rotations: dict[Axis, Rotation],
        text: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        block, axis = self.blocks[index], self.axes[index]
        rotation, frames = rotations.get(axis), self.attended_frames(index, x)
        over_time = rotations.get("time") if axis == "factorized" else None
        if index in self.recomputed:
            return checkpoint(self.tape, block, x, c, rotation, text, over_time, bias, frames, selected=self.selected)
        return block(x, c, rotation, text, over_time, bias, frames)

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
        if not isinstance(self.condition_embed, TextTokens):
            return None
        assert condition is not None
        with self.tape.enter("condition_embed"):
            return self.condition_embed(condition)

    def text_bias(self, mask: Tensor, text: Tensor) -> Tensor:
        """What hides the padding of prompts."""
        with self.tape.enter("condition_embed"):
            wide = select(  # without names, which would keep the operands until the cast
                unary("ne", mask, DType.BOOL),
                made_from_nothing("scalar_tensor", mask, (), DType.F32),
                made_from_nothing("scalar_tensor", mask, (), DType.F32),
            )
            return rearrange(cast_to(wide, text.dtype), "b m -> b 1 1 m")

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
        return add(x, add(table, self.frame_positions(x)) if self.frames_enter == "tokens" else table)

    def attended_frames(self, index: int, x: Tensor) -> Tensor | None:
        """The table over frames that a block shows to its attention across frames."""
        shows = index == 0 and self.frames_enter == "first_attention" and self.time_table is not None
        return self.frame_positions(x) if shows else None

    @property
    def first_temporal_block(self) -> int | None:
        """The block before which the table over frames is added."""
        return self.axes.index("time") if self.time_table is not None and "time" in self.axes else None

    def frame_positions(self, x: Tensor) -> Tensor:
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
