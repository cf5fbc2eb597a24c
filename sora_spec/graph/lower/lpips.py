"""LPIPS over VGG-16 features: mirrors `builders/vae/lpips.py`. Frozen, in float32 whatever the VAE's precision."""

from __future__ import annotations

from sora_spec.graph.eager.dtypes import DType
from sora_spec.graph.eager.ops import conv
from sora_spec.graph.eager.ops.pointwise import add, add_scalar, div, power, sub
from sora_spec.graph.eager.ops.pooling import divide, max_pool2d, relu, sqrt, sum_over
from sora_spec.graph.eager.ops.reduction import mean
from sora_spec.graph.eager.ops.views import reshape, transpose
from sora_spec.graph.eager.tensor import Tensor, run_one
from sora_spec.graph.lower.weights import Weights

STAGES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)
"""Index and channels of every convolution in torchvision's `vgg16().features`, by stage."""


class Lpips:
    """Distance of pairs of images. Its weights are constants to whoever trains."""

    def __init__(self, weights: Weights) -> None:
        self.features: list[list[tuple[Tensor, Tensor]]] = []
        channels = 3
        for stage in STAGES:
            layers: list[tuple[Tensor, Tensor]] = []
            for index, out in stage:
                kernel = weights.buffer(f"features.{index}.weight", (out, channels, 3, 3))
                layers.append((kernel, weights.buffer(f"features.{index}.bias", (out,))))
                channels = out
            self.features.append(layers)
        self.heads = [weights.buffer(f"heads.{k}", (1, stage[-1][1], 1, 1)) for k, stage in enumerate(STAGES)]
        self.shift = weights.buffer("shift", (1, 3, 1, 1))
        self.scale = weights.buffer("scale", (1, 3, 1, 1))

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Images (B, 3, Y, X) twice → (B,)."""
        batch = output.shape[0]
        distance = run_one("new_zeros", (output,), (batch,), (1,), DType.F32)
        for head, a, b in zip(self.heads, self.maps(output), self.maps(target), strict=True):
            difference = power(sub(unit(a), unit(b)))
            distance = add(distance, mean(conv.conv(difference, head, None, (1, 1), (0, 0)), (1, 2, 3)))
        return distance

    def maps(self, images: Tensor) -> list[Tensor]:
        x = div(sub(images, self.shift), self.scale)
        maps: list[Tensor] = []
        for number, stage in enumerate(self.features):
            x = max_pool2d(x) if number else x
            for weight, bias in stage:
                x = relu(conv.conv(x, weight, bias, (1, 1), (1, 1)))
            maps.append(x)
        return maps


def unit(features: Tensor) -> Tensor:
    """Features of unit length over the channels."""
    return divide(features, add_scalar(sqrt(sum_over(power(features), (1,)))))


def frames_of(video: Tensor) -> Tensor:
    """(B, 3, T, Y, X) → (B·T, 3, Y, X)."""
    x = transpose(video, 1, 2)
    return reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
