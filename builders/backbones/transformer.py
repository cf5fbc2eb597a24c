"""The diffusion transformer: DiT and SiT on images, OpenDiT's VDiT (`joint`) and Latte (`alternating`) on video; with
cross-attention text-to-video transformers in the manner of PixArt-α (Open-Sora, Latte-1, Wan).

Legend: `B` batch, `C` channels, `F H W` latent frames, rows, columns, `f` token frames, `S` tokens of
a frame, `D` width, `M` text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from sora_spec.builders.backbones.interface import Denoiser
from sora_spec.builders.backbones.temporal import Pattern
from sora_spec.builders.blocks.adaln import AdaLnBlock, Modulation, TextAttention
from sora_spec.builders.blocks.patch import PatchIn, PatchOut
from sora_spec.builders.blocks.position import Rope3d, Rotation, rope_axes, spatial_table, temporal_table
from sora_spec.builders.blocks.sequences import Sequences
from sora_spec.builders.blocks.table import FixedTable
from sora_spec.builders.conditions.label import LabelEmbedding
from sora_spec.builders.conditions.text import PooledText, TextTokens
from sora_spec.builders.conditions.time import TimeEmbedding
from sora_spec.language.facts import temporal_facts
from sora_spec.language.schema.backbone import Conditioning, CrossAttention, Rope, Sincos, Temporal, Transformer
from sora_spec.language.schema.clip import Patch
from sora_spec.language.schema.condition import ClassCondition, TextCondition
from sora_spec.language.shapes import Shapes
from sora_spec.recipe.sampling import longest_clip


@dataclass(frozen=True)
class Layout:
    """What the sections of a spec beside `backbone` say about the network."""

    shapes: Shapes
    patch: Patch
    pattern: Pattern
    """What the attentions of the blocks see."""
    condition: ClassCondition | TextCondition | None
    temporal: Temporal

    @property
    def longest(self) -> int:
        """Token frames of the tables of time."""
        return longest_clip(self.patch.time, self.shapes.grid[0])


class TransformerDenoiser(Denoiser):
    """Patches, blocks with adaLN, patches."""

    pos_embed: Tensor | None

    def __init__(self, backbone: Transformer, layout: Layout) -> None:
        super().__init__()
        width, shapes = backbone.width, layout.shapes
        self.size = (shapes.latent_height, shapes.latent_width)
        self.sequences = tuple(islice(cycle(layout.pattern), backbone.depth))
        self.frames_enter = temporal_facts(layout.temporal).frames_enter
        self.patch_in = PatchIn(shapes.channels, layout.patch, width)
        self.time_embed = TimeEmbedding(width, backbone.time_input)
        self.condition_embed = _condition_embed(layout.condition, width)
        self._add_positions(backbone, layout)
        hidden = int(width * backbone.mlp_ratio)
        kind, over = modulation_of(backbone.conditioning), backbone.qk_norm_over
        self.modulation = nn.Linear(width, 6 * width) if kind == "single" else None
        attends = None
        if isinstance(text := backbone.conditioning, CrossAttention):
            attends = TextAttention(text.norm, over if text.qk_norm else None)
        self.blocks = nn.ModuleList(
            AdaLnBlock(own, width, backbone.heads, hidden, over if backbone.qk_norm else None, kind, attends)
            for own in self.sequences
        )
        self.patch_out = PatchOut(width, shapes.out_channels, layout.patch, shapes.grid[2], kind)
        self.reset_parameters()

    def _add_positions(self, backbone: Transformer, layout: Layout) -> None:
        assert backbone.position.kind != "learned", "`build_denoiser` refuses it"
        _, rows, columns = layout.shapes.grid
        self.time_table, table = None, None
        if isinstance(backbone.position, Sincos):
            position = backbone.position
            table = spatial_table(backbone.width, rows, columns, position.space_scale)
            if self.frames_enter in ("tokens", "first_attention") or self.first_temporal_block is not None:
                make = partial(temporal_table, backbone.width, layout.longest, position.time_scale)
                self.time_table = FixedTable(make)
        self.register_buffer("pos_embed", table)
        self.rope = None
        if isinstance(backbone.position, Rope):
            axes = rope_axes(backbone.position, backbone.width // backbone.heads)
            self.rope = Rope3d(axes, backbone.position.theta, (layout.longest, rows, columns))

    def reset_parameters(self) -> None:
        """DiT's initialisation: Xavier linears, N(0, 0.02) embeddings, zero modulation and head: the output is zero.

        With adaLN-single PixArt-α's: N(0, 0.02) for the shared modulation and the text, and cross-attention adds zero.
        A second attention adds zero too: a fresh STDiT is an image model on every frame.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        vectors = [self.time_embed.fc1, self.time_embed.fc2]
        if isinstance(self.condition_embed, TextTokens):
            vectors += [self.condition_embed.fc1, self.condition_embed.fc2]
        for linear in vectors if self.modulation is None else [*vectors, self.modulation]:
            nn.init.normal_(linear.weight, std=0.02)
        if isinstance(self.condition_embed, LabelEmbedding):
            nn.init.normal_(self.condition_embed.table.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, AdaLnBlock)
            if isinstance(block.modulation, nn.Linear):
                nn.init.zeros_(block.modulation.weight)
            if block.cross is not None:
                nn.init.zeros_(block.cross.out.weight)
            if block.temporal is not None:
                nn.init.zeros_(block.temporal.out.weight)
        if isinstance(self.patch_out.modulation, nn.Linear):
            nn.init.zeros_(self.patch_out.modulation.weight)
        nn.init.zeros_(self.patch_out.proj.weight)

    @property
    def null_label(self) -> int | None:
        """The label that means "no label": one past the last class."""
        return self.condition_embed.null_label if isinstance(self.condition_embed, LabelEmbedding) else None

    @property
    def null_context(self) -> Tensor | None:
        return self.condition_embed.null if isinstance(self.condition_embed, TextTokens) else None

    def forward(
        self, latents: Tensor, time: Tensor, condition: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        assert latents.shape[-2:] == self.size, f"latents are {tuple(latents.shape[-2:])}, the spec's are {self.size}"
        x = self.patch_in(latents)  # (B, f, S, D)
        text = self.text_tokens(condition)  # (B, M, D) or None
        bias = None if mask is None else self.text_bias(mask, text)  # (B, 1, 1, M) or None
        c, shared = self.modulations(self.embed(time, condition))  # (B, D) and (B, D) or (B, 6·D)
        x = self.add_positions(x)  # (B, f, S, D)
        rotations = self.rotations(x.shape[1], x.dtype)
        for i, block in enumerate(self.blocks):
            if i == self.first_temporal_block and self.time_table is not None:
                x = x + self.frame_positions(x)  # (B, f, S, D)
            turned = [rotations.get(sequences) for sequences in self.sequences[i]]
            x = block(x, shared, turned[0], text, turned[-1], bias, self.attended_frames(i, x))  # (B, f, S, D)
        return self.patch_out(x, c).to(latents.dtype)  # (B, Cout, F, H, W)

    def embed(self, time: Tensor, condition: Tensor | None) -> Tensor:
        """Sum of time and of a condition that is one vector (B, D)."""
        c = self.time_embed(time)
        if self.condition_embed is None or isinstance(self.condition_embed, TextTokens):
            return c
        assert condition is not None, "this network needs a condition"
        return c + self.condition_embed(condition)

    def text_tokens(self, condition: Tensor | None) -> Tensor | None:
        """The text that blocks attend to: (B, M, D)."""
        if not isinstance(self.condition_embed, TextTokens):
            return None
        assert condition is not None, "this network needs a condition"
        return self.condition_embed(condition)

    def text_bias(self, mask: Tensor, text: Tensor | None) -> Tensor:
        """0 for the tokens of a prompt and −∞ for its padding, (B, 1, 1, M), to be added to scores."""
        assert text is not None, "a mask belongs to text tokens"
        assert mask.shape == text.shape[:2], f"the mask is {tuple(mask.shape)}, the text {tuple(text.shape)}"
        return torch.where(mask != 0, 0.0, float("-inf")).to(text.dtype)[:, None, None]

    def modulations(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """What modulates the head, and what modulates the blocks."""
        if self.modulation is None:
            active = silu(c)
            return active, active
        return c, self.modulation(silu(c))

    def add_positions(self, x: Tensor) -> Tensor:
        """Add the table over a frame, and that over frames too where all blocks look across frames (VDiT)."""
        if self.pos_embed is None:
            return x
        table = self.pos_embed.to(x.dtype)[:, None]  # (1, 1, S, D)
        return x + (table + self.frame_positions(x) if self.frames_enter == "tokens" else table)

    def attended_frames(self, index: int, x: Tensor) -> Tensor | None:
        """The table over frames that block `index` shows to its attention across frames: STDiT's first block's."""
        shows = index == 0 and self.frames_enter == "first_attention" and self.time_table is not None
        return self.frame_positions(x) if shows else None

    @property
    def first_temporal_block(self) -> int | None:
        """The block before which the table over frames is added, once (Latte)."""
        if self.frames_enter != "first_across_frames":
            return None
        return next((i for i, own in enumerate(self.sequences) if own[0].across_frames), None)

    def frame_positions(self, x: Tensor) -> Tensor:
        """Table over the frames of `x`: (1, f, 1, D)."""
        assert self.time_table is not None
        return self.time_table()[:, : x.shape[1], None].to(x.dtype)

    def rotations(self, frames: int, dtype: torch.dtype) -> dict[Sequences, Rotation]:
        """Rotary tables of the sequences that occur, computed once for all blocks."""
        if self.rope is None:
            return {}
        used = dict.fromkeys(sequences for own in self.sequences for sequences in own)
        return {sequences: sequences.rotation(self.rope, frames, dtype) for sequences in used}


def modulation_of(conditioning: Conditioning) -> Modulation:
    """adaLN-Zero or adaLN-single."""
    match conditioning.kind:
        case "adaln_zero":
            return "zero"
        case "adaln_single":
            return "single"
        case "cross_attention":
            return conditioning.modulation
        case "adaln_lora":
            raise AssertionError("`build_denoiser` refuses it")


def _condition_embed(
    condition: ClassCondition | TextCondition | None, width: int
) -> LabelEmbedding | PooledText | TextTokens | None:
    match condition:
        case ClassCondition():
            return LabelEmbedding(condition, width)
        case TextCondition():
            return PooledText(condition, width) if condition.pooled else TextTokens(condition, width)
        case None:
            return None
