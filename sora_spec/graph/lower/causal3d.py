"""The causal 3D VAE: mirrors `builders/vae/causal3d.py`, `causal_layers.py` and `block_transform.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops import conv
from sora_spec.graph.eager.ops.pointwise import add, add_scalar, cast_to, div, mul, power, rsqrt, silu, sub
from sora_spec.graph.eager.ops.reduction import mean
from sora_spec.graph.eager.ops.views import cat, chunk, expand_to, narrow, permute, reshape, unsqueeze
from sora_spec.graph.eager.tape import Entered
from sora_spec.graph.eager.tensor import Tensor
from sora_spec.graph.lower.pieces import Stream, join_frames, numbered, starts, stretches
from sora_spec.graph.lower.weights import Weights

if TYPE_CHECKING:
    from sora_spec.language.schema.vae import Causal3dVae


Half = Callable[[Tensor, Stream], Tensor]
"""Encoder or decoder on the next piece of a clip."""


class Causal3d:
    """Video (B, 3, 1 + k·time, Y, X) ⇄ latents (B, C, 1 + k, Y/space, X/space)."""

    def __init__(self, weights: Weights, vae: Causal3dVae, full: bool = False) -> None:
        self.tape, self.time, self.streaming, self.full = weights.tape, vae.compression.time, vae.streaming, full
        widths = [vae.width * multiplier for multiplier in vae.multipliers]
        with self.tape.enter("encoder", ("vae", "multipliers")):
            self.encoder = Encoder(weights, widths, vae)
        with self.tape.enter("decoder", ("vae", "multipliers")):
            self.decoder = Decoder(weights, widths, vae)
        kind = weights.policy.weights
        self.latent_mean = weights.buffer("latent_mean", (vae.channels,), kind, persistent=True)
        self.latent_std = weights.buffer("latent_std", (vae.channels,), kind, persistent=True)

    def normalise(self, z: Tensor) -> Tensor:
        """(z − mean) / std."""
        return div(sub(z, over_channels(self.latent_mean, z)), over_channels(self.latent_std, z))

    def denormalise(self, latents: Tensor) -> Tensor:
        """latents · std + mean."""
        mean, std = over_channels(self.latent_mean, latents), over_channels(self.latent_std, latents)
        return add(mul(latents, std), mean)

    def encode_raw(self, video: Tensor) -> Tensor:
        """Moments of the whole clip."""
        with self.tape.enter("encoder"):
            return self.encoder(video)

    def decode_raw(self, z: Tensor) -> Tensor:
        """Pixels of unnormalised latents."""
        with self.tape.enter("decoder"):
            return self.decoder(z)

    def encode_tile(self, video: Tensor) -> Tensor:
        """Moments, streamed where the spec says so."""
        if not self.streaming:
            return self.encode_raw(video)
        lengths = [1, *[self.time] * ((video.shape[2] - 1) // self.time)]
        pieces = self._run_pieces(self.encoder, "encoder", video, lengths)
        return join_frames(pieces, len(lengths))

    def decode_tile(self, latents: Tensor) -> Tensor:
        """Pixels of normalised latents, streamed where the spec says so."""
        if not self.streaming:
            return self.decode_raw(self.denormalise(latents))
        pieces = self._run_pieces(self.decoder, "decoder", self.denormalise(latents), [1] * latents.shape[2])
        return join_frames(pieces, 1 + (latents.shape[2] - 1) * self.time)

    def _run_pieces(self, half: Half, name: str, source: Tensor, lengths: list[int]) -> Iterator[Tensor]:
        """The encoder or decoder on one piece of `source` after the other; the second stands for all like it."""
        stream, start = Stream(), 0
        for first, last in stretches(len(lengths), self.full):
            region = self.tape.enter(numbered("pieces", first, last), times=last - first + 1)
            yield self._run_piece(half, name, region, narrow(source, 2, start, lengths[first]), stream)
            stream, start = Stream(stream.tails), start + lengths[first]

    def _run_piece(self, half: Half, name: str, region: Entered, piece: Tensor, stream: Stream) -> Tensor:
        with region, self.tape.enter(name, ("vae", "multipliers")):
            return half(piece, stream)


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

    def __call__(self, video: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, 3, T, Y, X) → (B, 2C, F, H, W)."""
        x = self.conv_in(video, stream)
        for number, level in enumerate(self.levels):
            if number:
                with self.tape.enter(f"down[{number - 1}]"):
                    x = self.down[number - 1](x, stream)
            with self.tape.enter(f"levels[{number}]"):
                x = run_level(level, x, stream)
        mean, logvar = chunk(self.conv_out(silu(self.norm_out(x)), stream), 2, 1)
        return cat([add(mean, self.transform(video, stream)), logvar], 1)


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

    def __call__(self, z: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, C, F, H, W) → (B, 3, T, Y, X)."""
        x = self.conv_in(z, stream)
        for number, level in enumerate(self.levels):
            if number:
                with self.tape.enter(f"up[{number - 1}]"):
                    x = self.up[number - 1](x, stream)
            with self.tape.enter(f"levels[{number}]"):
                x = run_level(level, x, stream)
        return add(self.conv_out(silu(self.norm_out(x)), stream), self.transform(z, stream))


def run_level(level: list[ResidualBlock], x: Tensor, stream: Stream | None) -> Tensor:
    """All blocks of a level. The caller holds the level's input until the last block is done."""
    for block in level:
        x = block(x, stream)
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

    def __call__(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, channels, T, Y, X) → (B, out, T', Y', X')."""
        x = cat([repeat_first(x, 2) if stream is None or starts(stream) else stream.front(), x], 2)
        if stream is not None:
            stream.pass_on(x, 3 - self.stride[0])
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

    def __call__(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, C, T, Y, X) → the same shape."""
        h = self.conv1(silu(self.norm1(x)), stream)
        h = self.norm2(h)
        h = silu(h)
        h = self.conv2(h, stream)
        return add(x, h)


class Upsample:
    """A convolution to the channels of all new positions, which then take their places."""

    def __init__(self, weights: Weights, channels: int, out: int, time: int) -> None:
        self.time = time
        self.conv = CausalConv3d(weights, "conv", channels, out * time * 4)

    def __call__(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, channels, 1 + k, Y, X) → (B, out, 1 + time·k, 2Y, 2X)."""
        x = to_positions(self.conv(x, stream), self.time, 2)
        return narrow(x, 2, self.time - 1, x.shape[2] - (self.time - 1)) if starts(stream) else x


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

    def __call__(self, video: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, 3, T, Y, X) → (B, C, F, H, W)."""
        repeats = self.block[0] - 1
        if repeats and starts(stream):
            video = cat([repeat_first(video, repeats), video], 2)
        return conv.conv(video, self.weight, None, self.block, (0, 0, 0))


class BlockSynthesis:
    """Each latent position writes one block of pixels."""

    def __init__(self, weights: Weights, channels: int, time: int, space: int) -> None:
        self.time, self.space = time, space
        self.weight = weights.parameter("transform.conv.weight", (3 * time * space * space, channels, 1, 1, 1))

    def __call__(self, z: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, C, F, H, W) → (B, 3, T, Y, X)."""
        video = to_positions(conv.conv(z, self.weight, None, (1, 1, 1), (0, 0, 0)), self.time, self.space)
        return narrow(video, 2, self.time - 1, video.shape[2] - (self.time - 1)) if starts(stream) else video
