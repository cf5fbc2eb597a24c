"""The autoencoder of Stable Diffusion per frame: mirrors `builders/vae/image_kl.py`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sora_spec.graph.eager.ops import conv
from sora_spec.graph.eager.ops.attention import Kernel, attention
from sora_spec.graph.eager.ops.norm import group_norm
from sora_spec.graph.eager.ops.pointwise import add, contiguous, div_scalar, mul_scalar, silu
from sora_spec.graph.eager.ops.views import expand_to, rearrange, reshape, unsqueeze
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.weights import Weights

if TYPE_CHECKING:
    from sora_spec.language.schema.vae import ImageKlVae


class ImageKl:
    """Video (B, 3, T, Y, X) ⇄ latents (B, C, T, Y/space, X/space)."""

    def __init__(self, weights: Weights, vae: ImageKlVae) -> None:
        enter = weights.tape.enter
        self.tape = weights.tape
        widths = [vae.width * multiplier for multiplier in vae.multipliers]
        with enter("encoder", ("vae", "multipliers")):
            self.encoder = Encoder(weights, widths, vae)
        with enter("decoder", ("vae", "multipliers")):
            self.decoder = Decoder(weights, widths, vae)
        with enter("quant_conv", ("vae", "channels")):
            self.quant_conv = Conv2d(weights, "quant_conv", 2 * vae.channels, 2 * vae.channels, 1)
        with enter("post_quant_conv", ("vae", "channels")):
            self.post_quant_conv = Conv2d(weights, "post_quant_conv", vae.channels, vae.channels, 1)

    def normalise(self, z: Tensor) -> Tensor:
        """z · scale."""
        return mul_scalar(z)

    def encode_raw(self, video: Tensor) -> Tensor:
        """Moments of the whole picture."""
        frames = rearrange(video, "b c t y x -> (b t) c y x")
        with self.tape.enter("encoder"):
            features = self.encoder(frames)
        moments = self.quant_conv(features)
        del features
        return rearrange(moments, "(b t) c h w -> b c t h w", b=video.shape[0])

    def encode_tile(self, video: Tensor) -> Tensor:
        return self.encode_raw(video)

    def decode_tile(self, latents: Tensor) -> Tensor:
        """Pixels of scaled latents of one tile."""
        return self.decode_raw(div_scalar(latents))

    def decode_raw(self, z: Tensor) -> Tensor:
        """Pixels of unscaled latents."""
        images = rearrange(z, "b c f h w -> (b f) c h w")
        with self.tape.enter("decoder"):
            frames = self.decoder(self.post_quant_conv(images))
        return rearrange(frames, "(b f) c y x -> b c f y x", b=z.shape[0])


class Conv2d:
    """`nn.Conv2d`."""

    def __init__(
        self, weights: Weights, name: str, channels: int, out: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        self.weight = weights.parameter(f"{name}.weight", (out, channels, kernel, kernel))
        self.bias = weights.parameter(f"{name}.bias", (out,))
        self.stride, self.padding = (stride, stride), (padding, padding)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, channels, Y, X) → (B, out, Y', X')."""
        return conv.conv(x, self.weight, self.bias, self.stride, self.padding)


class GroupNorm:
    """`nn.GroupNorm`."""

    def __init__(self, weights: Weights, name: str, channels: int, groups: int) -> None:
        self.groups = groups
        self.weight = weights.parameter(f"{name}.weight", (channels,))
        self.bias = weights.parameter(f"{name}.bias", (channels,))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) → the same shape."""
        return group_norm(x, self.weight, self.bias, self.groups)


class Encoder:
    """Images → features."""

    def __init__(self, weights: Weights, widths: list[int], vae: ImageKlVae) -> None:
        self.tape = weights.tape
        enter = self.tape.enter
        self.conv_in = Conv2d(weights, "conv_in", 3, widths[0], 3, padding=1)
        self.levels: list[tuple[list[ResidualBlock], Conv2d | None]] = []
        for number, (channels, width) in enumerate(pairwise([widths[0], *widths])):
            with enter(f"down[{number}]"):
                blocks = residual_blocks(weights, channels, width, vae.blocks, vae.groups)
                last = number + 1 == len(widths)
                self.levels.append((blocks, None if last else Conv2d(weights, "downsample", width, width, 3, stride=2)))
        with enter("mid"):
            self.mid = Middle(weights, widths[-1], vae.groups)
        self.norm_out = GroupNorm(weights, "norm_out", widths[-1], vae.groups)
        self.conv_out = Conv2d(weights, "conv_out", widths[-1], 2 * vae.channels, 3, padding=1)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, Y, X) → (B, 2C, H, W)."""
        x = self.conv_in(images)
        for number, (blocks, down) in enumerate(self.levels):
            with self.tape.enter(f"down[{number}]"):
                for block in blocks:
                    x = block(x)
                x = down(conv.pad(x, (0, 1, 0, 1))) if down is not None else x
        with self.tape.enter("mid"):
            x = self.mid(x)
        return self.conv_out(silu(self.norm_out(x)))


class Decoder:
    """Latents → images."""

    def __init__(self, weights: Weights, widths: list[int], vae: ImageKlVae) -> None:
        self.tape = weights.tape
        self.conv_in = Conv2d(weights, "conv_in", vae.channels, widths[-1], 3, padding=1)
        with self.tape.enter("mid"):
            self.mid = Middle(weights, widths[-1], vae.groups)
        self.levels: list[tuple[list[ResidualBlock], Conv2d | None]] = []
        for number, (width, above) in enumerate(pairwise([*widths, widths[-1]])):
            with self.tape.enter(f"up[{number}]"):
                blocks = residual_blocks(weights, above, width, vae.blocks + 1, vae.groups)
                up = Conv2d(weights, "upsample", width, width, 3, padding=1) if number else None
                self.levels.append((blocks, up))
        self.norm_out = GroupNorm(weights, "norm_out", widths[0], vae.groups)
        self.conv_out = Conv2d(weights, "conv_out", widths[0], 3, 3, padding=1)

    def __call__(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 3, Y, X)."""
        with self.tape.enter("mid"):
            x = self.mid(self.conv_in(latents))
        for number in reversed(range(len(self.levels))):
            blocks, up = self.levels[number]
            with self.tape.enter(f"up[{number}]"):
                for block in blocks:
                    x = block(x)
                x = upsample(x, up) if up is not None else x
        return self.conv_out(silu(self.norm_out(x)))


def upsample(x: Tensor, layer: Conv2d) -> Tensor:
    """Nearest neighbour ×2, then a convolution."""
    batch, channels, rows, columns = x.shape
    x = expand_to(unsqueeze(unsqueeze(x, 3), 5), (batch, channels, rows, 2, columns, 2))
    return layer(reshape(x, (batch, channels, 2 * rows, 2 * columns)))


class Middle:
    """Block, attention, block."""

    def __init__(self, weights: Weights, width: int, groups: int) -> None:
        self.block_1 = ResidualBlock(weights, width, width, groups)
        self.attention = Attention(weights, width, groups)
        self.block_2 = ResidualBlock(weights, width, width, groups)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return self.block_2(self.attention(self.block_1(x)))


class ResidualBlock:
    """Norm, SiLU, convolution, twice, beside a shortcut."""

    def __init__(self, weights: Weights, channels: int, out: int, groups: int) -> None:
        self.norm1 = GroupNorm(weights, "norm1", channels, groups)
        self.conv1 = Conv2d(weights, "conv1", channels, out, 3, padding=1)
        self.norm2 = GroupNorm(weights, "norm2", out, groups)
        self.conv2 = Conv2d(weights, "conv2", out, out, 3, padding=1)
        self.shortcut = Conv2d(weights, "nin_shortcut", channels, out, 1) if channels != out else None

    def __call__(self, x: Tensor) -> Tensor:
        """(B, channels, Y, X) → (B, out, Y, X)."""
        h = self.conv1(silu(self.norm1(x)))
        h = self.norm2(h)
        h = silu(h)
        h = self.conv2(h)
        return add(h, self.shortcut(x) if self.shortcut is not None else x)


class Attention:
    """Single-head self-attention over the positions of a frame."""

    def __init__(self, weights: Weights, width: int, groups: int) -> None:
        self.kernel: Kernel = weights.policy.attention
        self.norm = GroupNorm(weights, "norm", width, groups)
        self.q = Conv2d(weights, "q", width, width, 1)
        self.k = Conv2d(weights, "k", width, width, 1)
        self.v = Conv2d(weights, "v", width, width, 1)
        self.proj_out = Conv2d(weights, "proj_out", width, width, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        h = self.norm(x)
        q, k, v = [contiguous(rearrange(layer(h), "b c h w -> b 1 (h w) c")) for layer in (self.q, self.k, self.v)]
        out = attention(q, k, v, self.kernel)
        out = rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2])
        return add(x, self.proj_out(out))


def residual_blocks(weights: Weights, channels: int, width: int, blocks: int, groups: int) -> list[ResidualBlock]:
    """Blocks of which the first changes the channels."""
    return [ResidualBlock(weights, width if number else channels, width, groups) for number in range(blocks)]
