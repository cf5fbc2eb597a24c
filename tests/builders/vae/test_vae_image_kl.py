"""The image VAE against the published autoencoder: its counts, its names, its arithmetic written out again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sora_spec.builders.vae.image_kl import ImageKlModule
from sora_spec.errors import UserError
from sora_spec.language.schema.vae import Compression, ImageKlVae

SMALL = ImageKlVae(
    kind="image_kl",
    compression=Compression(time=1, space=4),
    width=32,
    multipliers=(1, 2, 2),
    blocks=1,
    groups=8,
    channels=3,
)


def official_names(levels: int = 4, blocks: int = 2, changes: tuple[int, ...] = (1, 2)) -> Iterator[str]:
    """ldm's AutoencoderKL as published; `changes` are the levels whose first block widens."""
    block = ["norm1", "conv1", "norm2", "conv2"]
    middle = [f"block_{n}.{part}" for n in (1, 2) for part in block] + [
        f"attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")
    ]
    parts = [f"{side}.{part}" for side in ("encoder", "decoder") for part in ("conv_in", "norm_out", "conv_out")]
    parts += [f"{side}.mid.{part}" for side in ("encoder", "decoder") for part in middle] + [
        "quant_conv",
        "post_quant_conv",
    ]
    for level in range(levels):
        parts += [f"encoder.down.{level}.block.{n}.{part}" for n in range(blocks) for part in block]
        parts += [f"decoder.up.{level}.block.{n}.{part}" for n in range(blocks + 1) for part in block]
        parts += [f"encoder.down.{level}.block.0.nin_shortcut"] if level in changes else []
        parts += [f"decoder.up.{level}.block.0.nin_shortcut"] if level + 1 in changes else []
        parts += [f"encoder.down.{level}.downsample.conv"] if level < levels - 1 else []
        parts += [f"decoder.up.{level}.upsample.conv"] if level else []
    return (f"{part}.{kind}" for part in parts for kind in ("weight", "bias"))


def test_the_published_autoencoder_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        vae = ImageKlModule(ImageKlVae(kind="image_kl"))
    counts = [sum(p.numel() for p in part.parameters()) for part in (vae.encoder, vae.decoder, vae)]
    assert counts == [34_163_592, 49_490_179, 83_653_863]
    state = vae.state_dict()
    assert len(state) == 248
    assert set(state) == set(official_names())
    assert state["encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    assert state["quant_conv.weight"].shape == (8, 8, 1, 1)


# The published arithmetic as plain functions over the ldm state dict; groups is a GroupNorm's number of groups.


def norm(state: dict[str, Tensor], name: str, x: Tensor, groups: int) -> Tensor:
    grouped = x.reshape(x.shape[0], groups, -1)
    mean, variance = grouped.mean(-1, keepdim=True), grouped.var(-1, correction=0, keepdim=True)
    x = ((grouped - mean) / torch.sqrt(variance + 1e-6)).reshape(x.shape)
    return x * state[f"{name}.weight"].view(1, -1, 1, 1) + state[f"{name}.bias"].view(1, -1, 1, 1)


def conv(state: dict[str, Tensor], name: str, x: Tensor, padding: int = 1, stride: int = 1) -> Tensor:
    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding, stride=stride)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def resnet(state: dict[str, Tensor], name: str, x: Tensor, groups: int) -> Tensor:
    h = conv(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x, groups)))
    h = conv(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", h, groups)))
    return h + (conv(state, f"{name}.nin_shortcut", x, 0) if f"{name}.nin_shortcut.weight" in state else x)


def middle(state: dict[str, Tensor], name: str, x: Tensor, groups: int) -> Tensor:
    x = resnet(state, f"{name}.block_1", x, groups)
    h = norm(state, f"{name}.attn_1.norm", x, groups)
    q, k, v = (conv(state, f"{name}.attn_1.{part}", h, 0).flatten(2) for part in "qkv")
    weights = torch.softmax(torch.einsum("bcn,bcm->bnm", q, k) * q.shape[1] ** -0.5, dim=-1)
    h = torch.einsum("bnm,bcm->bcn", weights, v).reshape(x.shape)
    x = x + conv(state, f"{name}.attn_1.proj_out", h, 0)
    return resnet(state, f"{name}.block_2", x, groups)


def reference_moments(state: dict[str, Tensor], x: Tensor, levels: int, blocks: int, groups: int) -> Tensor:
    x = conv(state, "encoder.conv_in", x)
    for level in range(levels):
        for block in range(blocks):
            x = resnet(state, f"encoder.down.{level}.block.{block}", x, groups)
        if level < levels - 1:
            x = conv(
                state, f"encoder.down.{level}.downsample.conv", functional.pad(x, (0, 1, 0, 1)), padding=0, stride=2
            )
    x = middle(state, "encoder.mid", x, groups)
    x = conv(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x, groups)))
    return conv(state, "quant_conv", x, 0)


def reference_decode(state: dict[str, Tensor], z: Tensor, levels: int, blocks: int, groups: int) -> Tensor:
    x = conv(state, "decoder.conv_in", conv(state, "post_quant_conv", z, 0))
    x = middle(state, "decoder.mid", x, groups)
    for level in reversed(range(levels)):
        for block in range(blocks + 1):
            x = resnet(state, f"decoder.up.{level}.block.{block}", x, groups)
        if level:
            x = conv(
                state, f"decoder.up.{level}.upsample.conv", functional.interpolate(x, scale_factor=2.0, mode="nearest")
            )
    return conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", x, groups)))


@pytest.fixture
def vae() -> ImageKlModule:
    torch.manual_seed(0)
    vae = ImageKlModule(SMALL).requires_grad_(False)
    for parameter in vae.parameters():  # gains and biases too: at 1 and 0 they would hide a mistake
        parameter.add_(0.05 * torch.randn_like(parameter))
    return vae


def test_encoder_and_decoder_equal_the_published_arithmetic(vae: ImageKlModule) -> None:
    state = vae.state_dict()
    images, z = torch.randn(2, 3, 16, 24), torch.randn(2, 3, 4, 6)
    expected = reference_moments(state, images, 3, 1, 8)
    mean, logvar = vae.moments(images[:, :, None])
    torch.testing.assert_close(mean[:, :, 0], expected[:, :3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logvar[:, :, 0], expected[:, 3:].clamp(-30, 20), atol=1e-5, rtol=1e-5)
    decoded = vae.decode_raw(z[:, :, None])
    torch.testing.assert_close(decoded[:, :, 0], reference_decode(state, z, 3, 1, 8), atol=1e-5, rtol=1e-5)


def test_frames_are_images_of_their_own_and_latents_are_scaled(vae: ImageKlModule) -> None:
    video, noise = torch.randn(2, 3, 3, 8, 8), torch.randn(2, 3, 3, 2, 2)
    latents = vae.encode(video, noise)
    assert latents.shape == vae.latent_shape(video.shape)
    one, one_noise = video[1:, :, 2:], noise[1:, :, 2:]
    mean, logvar = vae.moments(one)
    expected = 0.18215 * (mean + torch.exp(logvar / 2) * one_noise)
    torch.testing.assert_close(latents[1:, :, 2:], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vae.decode(latents)[1:, :, 2:], vae.decode_raw(expected / 0.18215), atol=1e-4, rtol=1e-4)


def test_a_side_that_does_not_divide_is_refused_with_a_crop_that_does(vae: ImageKlModule) -> None:
    with pytest.raises(UserError, match=r"18x24.*multiples of 4") as caught:
        vae.encode(torch.zeros(1, 3, 1, 18, 24))
    assert caught.value.hint == "crop it to 16x24"
