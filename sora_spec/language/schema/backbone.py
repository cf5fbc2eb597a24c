"""`backbone`: the denoising network, and `temporal`: how its layers see time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sora_spec.language.schema.section import Positive, Section, Size, Small


class AdaLnZero(Section):
    """Shift, scale and gate of every block from the summed condition; gates start at 0 (DiT, arXiv 2212.09748 §3.2)."""

    kind: Literal["adaln_zero"] = "adaln_zero"


class AdaLnSingle(Section):
    """One modulation for all blocks plus a learned table per block (PixArt-α, arXiv 2310.00426)."""

    kind: Literal["adaln_single"]


class AdaLnLora(Section):
    """One modulation for all blocks plus a low-rank update per block (W.A.L.T, arXiv 2312.06662 §3.4)."""

    kind: Literal["adaln_lora"]
    rank: Small = 2
    """Rank of each block's update."""


class CrossAttention(Section):
    """Text tokens enter every block by cross-attention between self-attention and MLP (PixArt-α, arXiv 2310.00426 §2.3;
    Open-Sora, Latte-1, Wan)."""

    kind: Literal["cross_attention"]
    modulation: Literal["single", "zero"] = "single"
    """How the time reaches the blocks: one modulation for all plus a learned table per block (adaLN-single), or a
    linear layer per block (adaLN-Zero)."""
    norm: bool = False
    """Whether tokens pass a layer norm with gain and bias before they attend to the text (Wan)."""
    qk_norm: bool = False
    """RMS-normalise the queries of tokens and the keys of the text, as `backbone.qk_norm` does within the clip."""


Conditioning = Annotated[AdaLnZero | AdaLnSingle | AdaLnLora | CrossAttention, Field(discriminator="kind")]


class Sincos(Section):
    """Fixed sine-cosine tables, 2D over the frame and 1D over time, added to the tokens (DiT, Latte)."""

    kind: Literal["sincos"] = "sincos"
    space_scale: Positive = 1.0
    """Rows and columns are divided by this before they become angles (Open-Sora: 0.5 at 256², 1 at 512²)."""
    time_scale: Positive = 1.0
    """Frames are divided by this before they become angles (Open-Sora: 1 at 16 frames, 2/3 at 64)."""


class Rope(Section):
    """Rotary positions over time, height and width, applied to queries and keys."""

    kind: Literal["rope"]
    theta: Positive = 10_000.0
    """Base of the frequencies."""
    axes: Annotated[tuple[Small, Small, Small], Field(strict=False)] | None = None
    """Channels of a head given to time, height and width. Each even; the sum is the head width.
    Left out: height and width get 3/8 each, rounded down to even, and time the rest."""


class Learned(Section):
    """A learned table, the sum of one over space and one over time (W.A.L.T)."""

    kind: Literal["learned"]


class NoPosition(Section):
    """No positions."""

    kind: Literal["none"]


Position = Annotated[Sincos | Rope | Learned | NoPosition, Field(discriminator="kind")]


class Transformer(Section):
    """A diffusion transformer over spacetime patches (DiT, SiT, Latte, OpenDiT)."""

    kind: Literal["transformer"]
    depth: Annotated[int, Field(ge=1, le=1024)]
    """Number of blocks."""
    width: Size
    """Channels of a token."""
    heads: Small
    """Attention heads. Must divide the width."""
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    """Hidden width of the MLP as a multiple of the width."""
    conditioning: Conditioning = AdaLnZero.model_construct()
    """How time and condition reach the blocks."""
    position: Position = Sincos.model_construct()
    """How tokens know where they are."""
    qk_norm: bool = False
    """RMS-normalise queries and keys, with a learned gain."""
    qk_norm_over: Literal["head", "width"] = "head"
    """What is normalised together: the channels of each head (STDiT3, Latte), or those of all heads (Wan, LTX)."""
    time_input: Literal["time", "noise_level"] = "time"
    """What the network is told of an interpolant's time. `time`: t as it is, 0 at noise (SiT). `noise_level`:
    1000·(1 − t), 1000 at noise, as rectified flows with a diffusion model's steps take it (Wan, Open-Sora 1.2)."""
    learn_sigma: bool = True
    """Predict a variance beside the mean: twice the output channels. DDPM with `variance: learned_range` needs it;
    under an interpolant the second half is dropped, as SiT does to stay loadable from DiT."""
    weights: str | None = None
    """Official checkpoint (DiT, SiT, Latte, Open-Sora 1.0) or safetensors file to start from."""


class Cascade(Section):
    """Stage C of StableCascade: ConvNeXt, timestep and attention blocks without down-sampling (arXiv 2306.00637)."""

    kind: Literal["cascade"]
    width: Size = 2048
    """Channels of both levels."""
    heads: Small = 32
    """Attention heads."""
    blocks: Annotated[tuple[Small, Small], Field(strict=False)] = (8, 24)
    """Block triplets of the two levels on the way down; mirrored on the way up."""
    weights: str | None = None
    """`stage_c.safetensors`."""


Backbone = Annotated[Transformer | Cascade, Field(discriminator="kind")]


class NoTemporal(Section):
    """Every frame on its own: an image model."""

    kind: Literal["none"] = "none"


class Joint(Section):
    """Every block attends over all tokens of all frames (OpenDiT's VDiT)."""

    kind: Literal["joint"]


class Alternating(Section):
    """Even blocks attend within a frame, odd blocks across frames (Latte variant 1, arXiv 2401.03048)."""

    kind: Literal["alternating"]


class Factorized(Section):
    """Attention within a frame, then across frames, inside every block (Open-Sora's STDiT, Latte variant 3)."""

    kind: Literal["factorized"]
    frame_positions: Literal["tokens", "first_attention"] = "tokens"
    """Where the sine-cosine table over frames enters. `tokens`: it is added to all tokens before the first block and
    stays in them. `first_attention`: it is added to what the first block's attention across frames reads, and nowhere
    else (Open-Sora's STDiT)."""


class Windowed(Section):
    """Alternate spatial windows and spatio-temporal windows (W.A.L.T, arXiv 2312.06662 §3.2)."""

    kind: Literal["windowed"]
    window: Annotated[tuple[Small, Small, Small], Field(strict=False)]
    """Spatio-temporal window in latent tokens: frames, height, width. Each must divide the token grid."""


class Inserted(Section):
    """Zero-initialised temporal layers inserted behind an image model's layers."""

    kind: Literal["inserted"]
    every: Small = 1
    """One temporal layer behind every this many blocks."""


Temporal = Annotated[NoTemporal | Joint | Alternating | Factorized | Windowed | Inserted, Field(discriminator="kind")]
