"""The causal 3D codec: mirrors `builders/vae/causal3d.py`, `causal_layers.py` and `block_transform.py`, whole clips."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sora_spec.graph.dtypes import DType
from sora_spec.graph.lower.weights import Weights
from sora_spec.graph.ops import conv
from sora_spec.graph.ops.pointwise import add, add_scalar, cast_to, clamp, div, mul, power, rsqrt, silu, sub
from sora_spec.graph.ops.reduction import mean
from sora_spec.graph.ops.views import cat, chunk, expand_to, narrow, permute, reshape, unsqueeze
from sora_spec.graph.tensor import Tensor

if TYPE_CHECKING:
    from sora_spec.schema.vae import Causal3dVae


class Causal3dCodec:
    """Video (B, 3, 1 + k·time, Y, X) ⇄ latents (B, C, 1 + k, Y/space, X/space)."""

    def __init__(self, weights: Weights, vae: Causal3dVae) -> None:
        self.tape = weights.tape
        widths = [vae.width * multiplier for multiplier in vae.multipliers]
        with self.tape.enter("encoder", ("vae", "multipliers")):
            self.encoder = Encoder(weights, widths, vae)
        with self.tape.enter("decoder", ("vae", "multipliers")):
            self.decoder = Decoder(weights, widths, vae)
        kind = weights.policy.weights
        self.latent_mean = weights.buffer("latent_mean", (vae.channels,), kind, persistent=True)
        self.latent_std = weights.buffer("latent_std", (vae.channels,), kind, persistent=True)

    def encode(self, video: Tensor) -> Tensor:
        """The posterior's mean, normalised."""
        mean, _ = self.moments(video)
        return div(sub(mean, over_channels(self.latent_mean, mean)), over_channels(self.latent_std, mean))

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and clamped log-variance."""
        with self.tape.enter("encoder"):
            moments = self.encoder(video)
        mean, logvar = chunk(moments, 2, 1)
        return mean, clamp(logvar)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels of normalised latents."""
        mean, std = over_channels(self.latent_mean, latents), over_channels(self.latent_std, latents)
        return self.decode_raw(add(mul(latents, std), mean))

    def decode_raw(self, z: Tensor) -> Tensor:
        """Pixels of unnormalised latents."""
        with self.tape.enter("decoder"):
            return self.decoder(z)


def over_channels(values: Tensor, latents: Tensor) -> Tensor:
    """(C,) → (C, 1, 1, 1)."""
    return per_channel(cast_to(values, latents.dtype))


def per_channel(values: Tensor) -> Tensor:
    """(C,) → (C, 1, 1, 1)."""
    return unsqueeze(unsqueeze(unsqueeze(values, 1), 2), 3)


class Encoder:
    """Video → moments."""

    def __init__(self, weights: Weights, widths: list[int], vae: Causal3dVae) -> None:
        self.tape = weights.tape
        time = vae.compression.time
        self.conv_in = CausalConv3d(weights, "conv_in", 3, widths[0])
        self.levels: list[list[ResidualBlock]] = []
        self.down: list[CausalConv3d] = []
        for number, width in enumerate(widths):
            with self.tape.enter(f"levels[{number}]"):
                self.levels.append([ResidualBlock(weights, width) for _ in range(vae.blocks)])
        for number, ((width, below), stride) in enumerate(_levels(widths, time_strides(len(widths), time))):
            with self.tape.enter(f"down[{number}]"):
                self.down.append(CausalConv3d(weights, "down", width, below, (stride, 2)))
        self.norm_out = RmsNorm(weights, "norm_out", widths[-1])
        self.conv_out = CausalConv3d(weights, "conv_out", widths[-1], 2 * vae.channels)
        self.transform = BlockAnalysis(weights, vae.channels, time, 2 ** (len(widths) - 1))

    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, Y, X) → (B, 2C, F, H, W)."""
        x = self.conv_in(video)
        for number, level in enumerate(self.levels):
            if number:
                with self.tape.enter(f"down[{number - 1}]"):
                    x = self.down[number - 1](x)
            with self.tape.enter(f"levels[{number}]"):
                x = run_level(level, x)
        mean, logvar = chunk(self.conv_out(silu(self.norm_out(x))), 2, 1)
        return cat([add(mean, self.transform(video)), logvar], 1)


class Decoder:
    """Latents → video."""

    def __init__(self, weights: Weights, widths: list[int], vae: Causal3dVae) -> None:
        self.tape = weights.tape
        widths, time = widths[::-1], vae.compression.time
        self.conv_in = CausalConv3d(weights, "conv_in", vae.channels, widths[0])
        self.levels: list[list[ResidualBlock]] = []
        self.up: list[Upsample] = []
        for number, width in enumerate(widths):
            with self.tape.enter(f"levels[{number}]"):
                self.levels.append([ResidualBlock(weights, width) for _ in range(vae.blocks + 1)])
        for number, ((width, above), stride) in enumerate(_levels(widths, time_strides(len(widths), time)[::-1])):
            with self.tape.enter(f"up[{number}]"):
                self.up.append(Upsample(weights, width, above, stride))
        self.norm_out = RmsNorm(weights, "norm_out", widths[-1])
        self.conv_out = CausalConv3d(weights, "conv_out", widths[-1], 3)
        self.transform = BlockSynthesis(weights, vae.channels, time, 2 ** (len(widths) - 1))

    def __call__(self, z: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, 3, T, Y, X)."""
        x = self.conv_in(z)
        for number, level in enumerate(self.levels):
            if number:
                with self.tape.enter(f"up[{number - 1}]"):
                    x = self.up[number - 1](x)
            with self.tape.enter(f"levels[{number}]"):
                x = run_level(level, x)
        return add(self.conv_out(silu(self.norm_out(x))), self.transform(z))


def run_level(level: list[ResidualBlock], x: Tensor) -> Tensor:
    """All blocks of a level. The caller holds the level's input until the last block is done."""
    for block in level:
        x = block(x)
    return x


def _levels(widths: list[int], strides: list[int]) -> list[tuple[tuple[int, int], int]]:
    return list(zip(pairwise(widths), strides, strict=True))


def time_strides(levels: int, time: int) -> list[int]:
    """Time stride of each change of resolution."""
    halvings = time.bit_length() - 1
    return [1] * (levels - 1 - halvings) + [2] * halvings


class CausalConv3d:
    """3D convolution padded in front only."""

    def __init__(self, weights: Weights, name: str, channels: int, out: int, stride: tuple[int, int] = (1, 1)) -> None:
        self.weight = weights.parameter(f"{name}.weight", (out, channels, 3, 3, 3))
        self.bias = weights.parameter(f"{name}.bias", (out,))
        self.stride = (stride[0], stride[1], stride[1])

    def __call__(self, x: Tensor) -> Tensor:
        """(B, channels, T, Y, X) → (B, out, T', Y', X')."""
        front = repeat_first(x, 2)
        x = cat([front, x], 2)
        return conv.conv(x, self.weight, self.bias, self.stride, (0, 1, 1))


def repeat_first(x: Tensor, times: int) -> Tensor:
    """The first frame, `times` times."""
    first = narrow(x, 2, 0, 1)
    return expand_to(first, (*x.shape[:2], times, *x.shape[3:]))


class RmsNorm:
    """Norm over the channels of each position."""

    def __init__(self, weights: Weights, name: str, channels: int) -> None:
        self.weight = weights.parameter(f"{name}.weight", (channels,))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T, Y, X) → the same shape."""
        wide = cast_to(x, DType.F32)
        average = mean(power(wide), (1,), keepdim=True)
        return mul(x, mul(cast_to(rsqrt(add_scalar(average)), x.dtype), per_channel(self.weight)))


class ResidualBlock:
    """Norm, SiLU, causal convolution, twice, beside the identity."""

    def __init__(self, weights: Weights, width: int) -> None:
        self.norm1 = RmsNorm(weights, "norm1", width)
        self.conv1 = CausalConv3d(weights, "conv1", width, width)
        self.norm2 = RmsNorm(weights, "norm2", width)
        self.conv2 = CausalConv3d(weights, "conv2", width, width)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T, Y, X) → the same shape."""
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return add(x, h)


class Upsample:
    """A convolution to the channels of all new positions, which then take their places."""

    def __init__(self, weights: Weights, channels: int, out: int, time: int) -> None:
        self.time = time
        self.conv = CausalConv3d(weights, "conv", channels, out * time * 4)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, channels, 1 + k, Y, X) → (B, out, 1 + time·k, 2Y, 2X)."""
        x = to_positions(self.conv(x), self.time, 2)
        return narrow(x, 2, self.time - 1, x.shape[2] - (self.time - 1))


def to_positions(x: Tensor, time: int, space: int) -> Tensor:
    """Depth to space: (B, C·time·space², F, H, W) → (B, C, F·time, H·space, W·space)."""
    batch, wide, frames, rows, columns = x.shape
    channels = wide // (time * space * space)
    x = reshape(x, (batch, channels, time, space, space, frames, rows, columns))
    shape = (batch, channels, frames * time, rows * space, columns * space)
    return reshape(permute(x, (0, 1, 5, 2, 6, 3, 7, 4)), shape)


class BlockAnalysis:
    """A strided convolution whose kernels tile the video."""

    def __init__(self, weights: Weights, channels: int, time: int, space: int) -> None:
        self.block = (time, space, space)
        self.weight = weights.parameter("transform.weight", (channels, 3, *self.block))

    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, T, Y, X) → (B, C, F, H, W)."""
        repeats = self.block[0] - 1
        if repeats:
            video = cat([repeat_first(video, repeats), video], 2)
        return conv.conv(video, self.weight, None, self.block, (0, 0, 0))


class BlockSynthesis:
    """Each latent position writes one block of pixels."""

    def __init__(self, weights: Weights, channels: int, time: int, space: int) -> None:
        self.time, self.space = time, space
        self.weight = weights.parameter("transform.conv.weight", (3 * time * space * space, channels, 1, 1, 1))

    def __call__(self, z: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, 3, T, Y, X)."""
        video = to_positions(conv.conv(z, self.weight, None, (1, 1, 1), (0, 0, 0)), self.time, self.space)
        return narrow(video, 2, self.time - 1, video.shape[2] - (self.time - 1))
