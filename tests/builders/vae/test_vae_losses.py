"""The vae stage's loss against torch.distributions and against LPIPS written out again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from sora_spec.builders.vae.interface import IdentityModule, VaeModule
from sora_spec.builders.vae.losses import VaeLoss
from sora_spec.builders.vae.lpips import load_lpips
from sora_spec.errors import UserError
from sora_spec.language.schema.vae import Lpips, VaeTraining


class Fixed(VaeModule):
    """A VAE whose posterior is given and whose decoder doubles."""

    channels, time, space = 3, 1, 1

    def __init__(self, mean: Tensor, logvar: Tensor) -> None:
        super().__init__()
        self.mean, self.logvar = nn.Parameter(mean), nn.Parameter(logvar)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean, self.logvar

    def decode_raw(self, z: Tensor) -> Tensor:
        return 2 * z


@pytest.mark.parametrize(("kind", "reference"), [("l1", functional.l1_loss), ("mse", functional.mse_loss)])
def test_the_loss_is_reconstruction_plus_weighted_kl_per_value(kind: str, reference) -> None:
    torch.manual_seed(0)
    shape = (2, 3, 2, 4, 4)
    mean, logvar, noise, video = (torch.randn(shape) for _ in range(4))
    settings = VaeTraining.model_validate({"reconstruction": kind, "kl_weight": 0.25})
    terms = VaeLoss(settings)(Fixed(mean, logvar), video, noise)
    std = torch.exp(logvar / 2)
    kl = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).mean()
    reconstruction = reference(2 * (mean + std * noise), video)
    torch.testing.assert_close(terms["kl"], kl)
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["loss"], reconstruction + 0.25 * kl)
    assert set(terms) == {"loss", "reconstruction", "kl", "psnr"}
    assert [name for name, value in terms.items() if value.requires_grad] == ["loss"]


def test_psnr_counts_a_peak_of_two() -> None:
    video = torch.zeros(1, 3, 1, 4, 4)
    terms = VaeLoss(VaeTraining())(Fixed(torch.full_like(video, 0.1), torch.full_like(video, -30.0)), video, video)
    assert float(terms["psnr"]) == pytest.approx(20.0, abs=1e-3)  # an error of 0.2 in a range of 2 is 1/10


def test_the_identity_vae_reconstructs() -> None:
    video = torch.rand(1, 3, 2, 4, 4) * 2 - 1
    terms = VaeLoss(VaeTraining())(IdentityModule(), video, torch.randn_like(video))
    assert float(terms["reconstruction"]) < 1e-5


# torchvision's `vgg16().features`, by its published configuration; "M" is a max-pool.
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def vgg16_features() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for item in VGG16:
        if isinstance(item, int):
            layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU()]
            channels = item
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Sequential, dict[str, Tensor]]:
    torch.manual_seed(0)
    path, vgg = tmp_path_factory.mktemp("lpips"), vgg16_features().requires_grad_(False)
    heads = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate((64, 128, 256, 512, 512))}
    unused = {"classifier.0.bias": torch.zeros(1)}
    save_file(
        {f"features.{name}": value for name, value in vgg.state_dict().items()} | unused, path / "vgg16.safetensors"
    )
    torch.save(heads, path / "lpips_vgg.pth")
    return path, vgg, heads


@torch.no_grad()
def test_lpips_equals_its_definition(folder: tuple[Path, nn.Sequential, dict[str, Tensor]]) -> None:
    path, vgg, heads = folder
    a, b = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    expected = torch.zeros(2)
    x, y = ((images - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for images in (a, b))
    for index, layer in enumerate(vgg):
        x, y = layer(x), layer(y)
        if index in (3, 8, 15, 22, 29):  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
            head = heads[f"lin{(3, 8, 15, 22, 29).index(index)}.model.1.weight"]
            squared = (functional.normalize(x, dim=1) - functional.normalize(y, dim=1)) ** 2
            expected += (squared * head).sum(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(load_lpips(path)(a, b), expected, atol=1e-5, rtol=1e-4)


def test_lpips_enters_the_loss_and_stays_frozen(folder: tuple[Path, nn.Sequential, dict[str, Tensor]]) -> None:
    loss = VaeLoss(VaeTraining(perceptual=Lpips(kind="lpips", weights=str(folder[0]), weight=0.5), kl_weight=0.0))
    video = torch.rand(1, 3, 2, 32, 32)
    vae = Fixed(torch.rand_like(video), torch.full_like(video, -30.0))
    terms = loss(vae, video, video)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["perceptual"])
    terms["loss"].backward()
    assert vae.mean.grad is not None
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_missing_lpips_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vgg16\.safetensors.*vgg16\.pth"):
        load_lpips(tmp_path)


def test_foreign_lpips_files_are_refused_with_every_bad_tensor(
    tmp_path: Path, folder: tuple[Path, nn.Sequential, dict[str, Tensor]]
) -> None:
    save_file({"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "vgg16.safetensors")
    save_file(folder[2], tmp_path / "lpips_vgg.safetensors")
    with pytest.raises(UserError, match=r"features\.0\.weight.*features\.28\.weight"):
        load_lpips(tmp_path)
