"""LPIPS over VGG-16 features (Zhang et al., arXiv 1801.03924), with weights from a local folder.

Layouts: VGG-16 as torchvision saves it (`features.N.weight`), the five linear heads as the `lpips` package saves them
(`linK.model.1.weight`, its weights/v0.1/vgg.pth).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from sora_spec.builders.weights.files import read_state
from sora_spec.errors import UserError

# Index of every convolution in torchvision's `vgg16().features` with its output channels, by stage. A stage starts
# with a max-pool (but for the first) and its last ReLU is one LPIPS feature map.
STAGES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)
SUFFIXES = (".safetensors", ".pth", ".pt")


class Lpips(nn.Module):
    """Perceptual distance of image pairs: weighted squared differences of unit-normalised VGG-16 features."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        channels = 3
        for index, out_channels in (conv for stage in STAGES for conv in stage):
            self.features[str(index)] = nn.Conv2d(channels, out_channels, 3, padding=1)
            channels = out_channels
        self.heads = nn.ParameterList(torch.zeros(1, stage[-1][1], 1, 1) for stage in STAGES)
        # ImageNet's normalisation for inputs in [-1, 1], as rounded in the official ScalingLayer.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of each pair of images (B, 3, Y, X) in [-1, 1]: (B,)."""
        distance = output.new_zeros(output.shape[0])
        for head, a, b in zip(self.heads, self.maps(output), self.maps(target), strict=True):
            difference = (unit(a) - unit(b)).square()  # (B, C, h, w)
            distance = distance + conv2d(difference, head).mean(dim=(1, 2, 3))
        return distance

    def maps(self, images: Tensor) -> list[Tensor]:
        """The five feature maps: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""
        x = (images - self.shift) / self.scale
        maps: list[Tensor] = []
        for number, stage in enumerate(STAGES):
            x = max_pool2d(x, 2) if number else x
            for index, _ in stage:
                x = relu(self.features[str(index)](x))
            maps.append(x)
        return maps


def unit(features: Tensor) -> Tensor:
    """Features of unit length over the channels. ε as in the official normalize_tensor."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def load_lpips(folder: str | Path) -> Lpips:
    """LPIPS with the weights of `folder`, frozen and in eval mode.

    Raises UserError where a file is missing or not of the expected layout.
    """
    vgg = read_state(find(Path(folder), "vgg16", "torchvision's VGG-16"))
    heads = read_state(find(Path(folder), "lpips_vgg", "the lpips package's weights/v0.1/vgg.pth"))
    state = {key: value for key, value in vgg.items() if key.startswith("features.")}
    state |= {f"heads.{k}": heads[name] for k in range(5) if (name := f"lin{k}.model.1.weight") in heads}
    model = Lpips()
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items() if key not in ("shift", "scale")}
    wrong = sorted(key for key in wanted if key not in state or tuple(state[key].shape) != wanted[key])
    if wrong:
        raise UserError(
            f"{folder}: not VGG-16 with LPIPS heads; missing or of another shape: {', '.join(wrong)}",
            hint="bring vgg16 in torchvision's layout (features.0.weight …) and lpips_vgg with lin0.model.1.weight …",
        )
    model.load_state_dict({key: state[key] for key in wanted}, strict=False)
    return model.eval()


def find(folder: Path, stem: str, origin: str) -> Path:
    """The file `stem` with any known suffix in `folder`."""
    for suffix in SUFFIXES:
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise UserError(
        f"{folder}: LPIPS needs `{stem}.safetensors` or `{stem}.pth` there, and it is missing",
        hint=f"put {origin} there under that name, or set vae.training.perceptual.kind to none",
    )
