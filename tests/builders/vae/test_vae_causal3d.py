"""The causal VAE: who may depend on whom, streams equal to whole clips, and the transform that it starts from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from sora_spec.builders.vae.block_transform import BlockAnalysis, BlockSynthesis, dct
from sora_spec.builders.vae.causal3d import Causal3dModule
from sora_spec.builders.vae.causal_layers import CausalConv3d, Stream, to_positions
from sora_spec.builders.vae.statistics import LatentStatistics
from sora_spec.builders.vae.streaming import decode_pieces, encode_pieces
from sora_spec.errors import UserError
from sora_spec.language.schema.vae import Causal3dVae, Compression

TIMES = (1, 2, 4, 8)


def settings(time: int = 4, multipliers: tuple[int, ...] = (1, 2, 2, 4)) -> Causal3dVae:
    compression = Compression.model_validate({"time": time, "space": 2 ** (len(multipliers) - 1)})
    return Causal3dVae(kind="causal3d", compression=compression, channels=4, width=4, multipliers=multipliers, blocks=1)


def build(time: int = 4) -> Causal3dModule:
    """A VAE in float64 without zeros in its weights, so that every path is open."""
    torch.manual_seed(time)
    vae = Causal3dModule(settings(time)).double()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    vae.set_latent_statistics(torch.randn(4), torch.rand(4) + 0.5)
    return vae


def clip(time: int, latent_frames: int = 3, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 1 + (latent_frames - 1) * time, 16, 8, dtype=torch.float64)


@pytest.mark.parametrize("time", TIMES)
def test_latents_and_frames_depend_on_the_past_only(time: int) -> None:
    vae, video = build(time), clip(time).requires_grad_()
    z, _ = vae.moments(video)
    for j in range(z.shape[2]):
        (gradient,) = torch.autograd.grad(z[:, :, j].square().sum(), video, retain_graph=True)
        reach = gradient.abs().amax(dim=(0, 1, 3, 4)) > 0
        assert not reach[time * j + 1 :].any()
        assert reach[time * j]
    latents = z.detach().requires_grad_()
    frames = vae.decode_raw(latents)
    assert frames.shape == video.shape
    for k in range(frames.shape[2]):
        (gradient,) = torch.autograd.grad(frames[:, :, k].square().sum(), latents, retain_graph=True)
        reach = gradient.abs().amax(dim=(0, 1, 3, 4)) > 0
        assert not reach[math.ceil(k / time) + 1 :].any()
        assert reach[math.ceil(k / time)]


@torch.no_grad()
def test_a_change_of_late_frames_leaves_early_latents_alone() -> None:
    vae, video = build(4), clip(4, batch=2)
    changed = video.clone()
    changed[:, :, 5:] = torch.randn_like(changed[:, :, 5:])
    before, after = vae.encode(video), vae.encode(changed)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.allclose(before[:, :, 2], after[:, :, 2])


@torch.no_grad()
@pytest.mark.parametrize("time", TIMES)
def test_the_first_frame_is_an_image_and_an_image_is_a_still_video(time: int) -> None:
    vae, video = build(time), clip(time, batch=2)
    latents = vae.encode(video)
    torch.testing.assert_close(latents[:, :, :1], vae.encode(video[:, :, :1]), atol=1e-12, rtol=0)
    torch.testing.assert_close(vae.decode(latents)[:, :, :1], vae.decode(latents[:, :, :1]), atol=1e-12, rtol=0)
    still = vae.encode(video[:, :, :1].expand_as(video))
    torch.testing.assert_close(still, latents[:, :, :1].expand_as(still), atol=1e-12, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("time", TIMES)
def test_pieces_equal_the_whole(time: int) -> None:
    vae, video = build(time), clip(time, latent_frames=4)
    latents = vae.encode(video)
    pieces = list(encode_pieces(vae.encoder, video, time))
    assert [piece.shape[2] for piece in pieces] == [1, 1, 1, 1]
    torch.testing.assert_close(torch.cat(pieces, dim=2), vae.encode_raw(video), atol=1e-12, rtol=0)
    pieces = list(decode_pieces(vae.decoder, latents))
    assert [piece.shape[2] for piece in pieces] == [1, time, time, time]
    torch.testing.assert_close(torch.cat(pieces, dim=2), vae.decode_raw(latents), atol=1e-12, rtol=0)


@torch.no_grad()
def test_a_stream_keeps_no_more_than_two_frames_per_convolution() -> None:
    vae, stream = build(4), Stream()
    vae.decoder(torch.randn(1, 4, 1, 2, 1, dtype=torch.float64), stream)
    convolutions = [module for module in vae.decoder.modules() if isinstance(module, CausalConv3d)]
    assert len(stream.tails) == len(convolutions)
    assert {tail.shape[2] for tail in stream.tails} == {2}


def test_every_parameter_learns() -> None:
    vae, video = build(4), clip(4)
    output, mean, logvar = vae(video, torch.randn(vae.latent_shape(video.shape)))
    (output.square().mean() + mean.square().mean() + logvar.mean()).backward()
    assert [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_encoding_normalises_with_the_measured_statistics() -> None:
    vae = build(2)
    clips = [clip(2, batch=2) for _ in range(3)]
    statistics = LatentStatistics(4)
    for video in clips:
        statistics.add(*vae.moments(video))
    vae.set_latent_statistics(*statistics.result())
    moments = [vae.moments(video) for video in clips]
    draws = torch.cat([m + torch.exp(v / 2) * torch.randn(500, *m.shape) for m, v in moments], dim=1)
    normal = torch.stack([vae.normalise(z) for z in draws])  # (500, B, C, F, H, W)
    torch.testing.assert_close(normal.mean(dim=(0, 1, 3, 4, 5)), torch.zeros(4, dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(normal.std(dim=(0, 1, 3, 4, 5)), torch.ones(4, dtype=torch.float64), atol=0.02, rtol=0)
    latents = vae.encode(clips[0])
    torch.testing.assert_close(vae.decode(latents), vae.decode_raw(moments[0][0]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_unusual_clip_cannot_draw_boundless_noise() -> None:
    vae, video = build(4), clip(4)
    vae.encoder.conv_out.weight.mul_(1000)
    _, logvar = vae.moments(video)
    assert float(logvar.max()) == 1.0
    assert float(logvar.min()) == -30.0


def test_it_builds_without_memory() -> None:
    with torch.device("meta"):
        vae = Causal3dModule(Causal3dVae(kind="causal3d"))
        latents = vae.encode(torch.empty(1, 3, 17, 64, 64))
    assert latents.shape == (1, 16, 5, 8, 8)
    assert all(parameter.is_meta for parameter in vae.parameters())


def test_the_frame_rule_is_told_with_both_neighbours() -> None:
    with pytest.raises(UserError, match=r"clip of 15 frames.*1 \+ k·4") as caught:
        build(4).encode(torch.zeros(1, 3, 15, 16, 8, dtype=torch.float64))
    assert caught.value.hint == "use 13 or 17 frames"


def test_more_halvings_than_levels_are_refused() -> None:
    with pytest.raises(UserError, match="needs 3 downsampling levels, but multipliers give 2"):
        Causal3dModule(settings(8, (1, 2, 2)))


def test_depth_to_space_puts_each_channel_in_its_place() -> None:
    x = torch.arange(2 * 24 * 2 * 2 * 3).reshape(2, 24, 2, 2, 3)
    video = to_positions(x, 2, 2)
    assert video.shape == (2, 3, 4, 4, 6)
    # Channel c·8 + t·4 + y·2 + x of block (F, H, W) is the value at (2F + t, 2H + y, 2W + x).
    assert video[1, 2, 3, 0, 5] == x[1, 2 * 8 + 1 * 4 + 0 * 2 + 1, 1, 0, 2]
    assert torch.equal(video.unique(), x.flatten())


def test_the_basis_is_scipys_dct() -> None:
    signal = np.random.default_rng(0).normal(size=(4, 8, 8))
    expected = dctn(signal, norm="ortho")
    ours = np.einsum("tyx,at,by,cx->abc", signal, *(dct(size).numpy() for size in (4, 8, 8)))
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@torch.no_grad()
def test_with_all_functions_the_transform_loses_nothing() -> None:
    channels = 3 * 2 * 4 * 4
    video = torch.randn(1, 3, 5, 8, 8)
    z = BlockAnalysis(channels, 2, 4)(video)
    assert z.shape == (1, channels, 3, 2, 2)
    torch.testing.assert_close(BlockSynthesis(channels, 2, 4)(z), video, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_fresh_vae_is_that_transform() -> None:
    torch.manual_seed(0)
    vae, video = Causal3dModule(settings(4)), torch.randn(1, 3, 5, 16, 8)
    analysis, synthesis = BlockAnalysis(4, 4, 8), BlockSynthesis(4, 4, 8)
    torch.testing.assert_close(vae.decode(vae.encode(video)), synthesis(analysis(video)))
