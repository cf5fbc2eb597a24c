"""How much tiling changes what a trained VAE makes of a real clip, and whether its seams show.

    python benchmarks/vae_tiling_psnr.py runs/tiny-causal3d data/held-out/carphone_pristine.mp4 --size 128 160

Printed for the whole picture and for several tilings, over all pixels (8-bit range, values clamped):

- PSNR against the clip, encoded and decoded in tiles;
- PSNR of that reconstruction against the one made of whole pictures;
- the seams: the mean step from pixel to pixel across the borders of tiles over that everywhere else, less the same
  ratio in the reconstruction made of whole pictures (whose steps are larger between latents anyway): 0 is no seam.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from sora_spec.builders.vae.from_spec import VaeModule, unset_pieces
from sora_spec.builders.weights.vae_run import load_vae
from sora_spec.disk.run_folder import RunFolder
from sora_spec.language.tiles import Span, spans
from sora_spec.train.data.clips import exact_fps
from sora_spec.train.data.decode import clip_ticks, decode_frames
from sora_spec.train.data.picture import Framing, crop, scaled_size
from sora_spec.train.data.probe import probe
from sora_spec.train.data.sources import Entry

SIDES = ((64, 0), (64, 16), (64, 32), (96, 24))
"""Sides and overlaps that are tried, in pixels."""


def read_clip(path: Path, frames: int, fps: float, size: tuple[int, int]) -> Tensor:
    """The first frames of a file, scaled to cover and cropped: (1, 3, T, Y, X) in [-1, 1]."""
    file, rate = probe(Entry(path)), exact_fps(fps)
    framing = Framing(*size, train=False)
    scaled = scaled_size((file.height, file.width), framing, 0.0)
    clip = crop(decode_frames(file, clip_ticks(file, 0, frames, rate), scaled), framing, (0, 0, 0))
    return torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def psnr(output: Tensor, video: Tensor) -> float:
    """In dB, for values in [-1, 1]."""
    error = float((output.clamp(-1, 1) - video.clamp(-1, 1)).square().mean())
    return math.inf if error == 0 else 10 * math.log10(4 / error)


def borders(found: tuple[Span, ...], side: int, space: int) -> list[int]:
    """Pixels before which a tile begins or ends, inside the picture."""
    return sorted({span.start * space for span in found[1:]} | {(span.start + side) * space for span in found[:-1]})


def seam(video: Tensor, rows: list[int], columns: list[int]) -> float:
    """Mean step across the borders over the mean step elsewhere."""
    across, rest = [], []
    for axis, places in ((-2, rows), (-1, columns)):
        steps = video.diff(dim=axis).abs().mean(dim=[d for d in range(video.ndim) if d != video.ndim + axis])
        chosen = torch.zeros(len(steps), dtype=torch.bool)
        chosen[[place - 1 for place in places]] = True
        across.append(steps[chosen])
        rest.append(steps[~chosen])
    return float(torch.cat(across).mean() / torch.cat(rest).mean())


@torch.no_grad()
def measure(vae: VaeModule, video: Tensor) -> None:
    """Print the table."""
    unset_pieces(vae)
    whole = vae.decode(vae.encode(video))
    print(f"{'tiles':>14} {'to the clip':>12} {'to the whole':>13} {'seams':>8}")
    print(f"{'whole':>14} {psnr(whole, video):>9.2f} dB {'':>13} {'':>8}")
    for side, overlap in SIDES:
        vae.tiles = side // vae.space, overlap // vae.space
        rebuilt = vae.decode(vae.encode(video))
        lines = [
            borders(spans(extent // vae.space, *vae.tiles), vae.tiles[0], vae.space) for extent in video.shape[-2:]
        ]
        excess = seam(rebuilt, *lines) - seam(whole, *lines)
        name = f"{side} over {overlap}"
        print(f"{name:>14} {psnr(rebuilt, video):>9.2f} dB {psnr(rebuilt, whole):>10.2f} dB {excess:>+8.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 160), metavar=("HEIGHT", "WIDTH"))
    given = parser.parse_args()
    opened = RunFolder.open(given.run)
    spec = opened.load_spec()
    measure(load_vae(opened), read_clip(given.clip, spec.clip.frames, spec.clip.fps, tuple(given.size)))
