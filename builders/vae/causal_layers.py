"""The layers of the causal VAE, each of which runs on a whole clip or piece by piece with the same result.

Every layer takes (B, C, T, Y, X) and an optional `Stream`. Without one the input is a whole clip. With one it is the
next piece of a clip, and the stream holds the few frames that each convolution still needs from the piece before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class Stream:
    """What the causal convolutions remember between pieces: the last frames of each one's input, in call order.

    Plain tensors in and out, so that an exported step can take them as inputs and return them as outputs::

        stream = Stream()                       # the first piece
        first = decoder(z[:, :, :1], stream)
        stream = Stream(stream.tails)           # every further piece
        rest = decoder(z[:, :, 1:], stream)
    """

    def __init__(self, tails: list[Tensor] | None = None) -> None:
        self.before: list[Tensor | None] | None = None if tails is None else list(tails)
        self.tails: list[Tensor] = []

    @property
    def starts(self) -> bool:
        """Whether this is the first piece of a clip."""
        return self.before is None

    def pass_on(self, extended: Tensor, frames: int) -> None:
        """Remember the last `frames` frames of a convolution's extended input."""
        self.tails.append(extended[:, :, extended.shape[2] - frames :].contiguous())

    def front(self) -> Tensor:
        """The frames that the convolution which is called next remembered. They are let go: each is asked for once."""
        assert self.before is not None
        number = len(self.tails)
        front, self.before[number] = self.before[number], None
        assert front is not None, "a convolution is called once a piece"
        return front


class CausalConv3d(nn.Conv3d):
    """3D convolution that is padded in front only: output frame j sees input frames ≤ stride·j.

    The first frame is repeated in front of the clip, so an image means the same as a still video; rows and columns are
    padded with zeros. T = 1 + stride·k frames become 1 + k.
    """

    def __init__(self, channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)) -> None:
        time, space = stride
        super().__init__(channels, out_channels, 3, stride=(time, space, space), padding=(0, 1, 1))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, stream: Stream | None = None
    ) -> Tensor:
        """(B, channels, T, Y, X) → (B, out_channels, T', Y', X')."""
        # No name may hold the front: a view of `x`, it would keep `x` beside its longer copy.
        x = torch.cat([front_of(x, stream), x], dim=2)
        if stream is not None:
            stream.pass_on(x, 3 - self.stride[0])
        return super().forward(x)


def front_of(x: Tensor, stream: Stream | None) -> Tensor:
    """The two frames before `x`: its first one twice where a clip begins."""
    return x[:, :, :1].expand(-1, -1, 2, -1, -1) if starts(stream) else cast(Stream, stream).front()


class RmsNorm(nn.Module):
    """x / RMS over the channels of each position, with a learned gain. Nothing is shared over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, Y, X) → the same shape."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # a half overflows from |x| = 256
        power = wide.square().mean(dim=1, keepdim=True)
        return x * (torch.rsqrt(power + 1e-6).to(x.dtype) * self.weight[:, None, None, None])


class ResidualBlock(nn.Module):
    """Norm, SiLU, causal convolution, twice, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = RmsNorm(width)
        self.conv1 = CausalConv3d(width, width)
        self.norm2 = RmsNorm(width)
        self.conv2 = CausalConv3d(width, width)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, C, T, Y, X) → the same shape."""
        h = self.conv1(silu(self.norm1(x)), stream)
        # One step a line: each lets go of the last one's result, and the peak of the VAE is lower by a tensor.
        h = self.norm2(h)
        h = silu(h)
        h = self.conv2(h, stream)
        return x + h


class Sequence(nn.ModuleList):
    """Layers one after the other, with the stream."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__(layers)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in self:
            x = layer(x, stream)
        return x


class Upsample(nn.Module):
    """Twice the rows and columns, and with `time` 2 twice the frames less the very first: 1 + k → 1 + 2k.

    A causal convolution to the channels of all new positions, which then take their places (depth to space).
    """

    def __init__(self, channels: int, out_channels: int, time: int) -> None:
        super().__init__()
        self.time = time
        self.conv = CausalConv3d(channels, out_channels * time * 4)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """(B, channels, 1 + k, Y, X) → (B, out_channels, 1 + time·k, 2Y, 2X)."""
        x = to_positions(self.conv(x, stream), self.time, 2)
        # Latent frame j stands for frames 2j − 1 and 2j; there is no frame −1.
        return x[:, :, self.time - 1 :] if starts(stream) else x


def starts(stream: Stream | None) -> bool:
    """Whether the input begins a clip."""
    return stream is None or stream.starts


def to_positions(x: Tensor, time: int, space: int) -> Tensor:
    """Depth to space: (B, C·time·space², F, H, W) → (B, C, F·time, H·space, W·space)."""
    B, wide, F, H, W = x.shape
    C = wide // (time * space * space)
    x = x.reshape(B, C, time, space, space, F, H, W)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(B, C, F * time, H * space, W * space)
