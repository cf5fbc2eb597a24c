"""How well a trained VAE reconstructs clips it has not seen, beside average pooling to as many values.

    python benchmarks/causal_vae_psnr.py runs/tiny-causal3d data/held-out/carphone_pristine.mp4 [more files…]

Every file is cut into clips of the spec's frames, rate and size, one after the other from its start to its end, scaled
to cover the frame and cropped at the centre. Printed is the PSNR over all pixels of a file's clips (8-bit range, values
clamped), for

- the VAE: encode to the posterior's mean, decode;
- the same VAE untrained: the block transform that it starts from;
- average pooling. Every shape t x h x w of pooled RGB video with at most as many values as the latents and roughly the
  frame's aspect is tried, enlarged again by nearest neighbour and linearly over time and space, and the best of them
  all on the very file that is measured is taken.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, interpolate

from sora_spec.builders.vae.from_spec import VaeModule, build_vae
from sora_spec.builders.weights.vae_run import load_vae
from sora_spec.disk.run_folder import RunFolder
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.train.data.clips import exact_fps
from sora_spec.train.data.decode import clip_ticks, decode_frames
from sora_spec.train.data.picture import Framing, crop, scaled_size
from sora_spec.train.data.probe import probe
from sora_spec.train.data.sources import Entry

STRETCH = 1.35
"""Largest ratio of the pooled aspect to the frame's that is tried."""


def read_clips(path: Path, spec: Spec) -> Tensor:
    """All clips of a file, end to end: (clips, 3, T, Y, X) in [-1, 1]."""
    file, fps, frames = probe(Entry(path)), exact_fps(spec.clip.fps), spec.clip.frames
    framing = Framing(spec.clip.height, spec.clip.width, train=False)
    step = math.ceil(frames * file.rate / fps)
    starts = range(0, file.starts(frames, fps), step)
    if not starts:
        raise UserError(f"{path} is too short: {file.seconds:.3g} s for {frames} frames at {spec.clip.fps:g} fps")
    size = scaled_size((file.height, file.width), framing, 0.0)
    clips = [
        crop(decode_frames(file, clip_ticks(file, start, frames, fps), size), framing, (0, 0, 0)) for start in starts
    ]
    return torch.stack([torch.from_numpy(clip) for clip in clips]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def psnr(output: Tensor, video: Tensor) -> float:
    """Over all values of all clips, in dB, for values in [-1, 1]."""
    return 10 * math.log10(4 / float((output.clamp(-1, 1) - video).square().mean()))


def rebuilt(vae: VaeModule, video: Tensor) -> Tensor:
    """Clip by clip, to keep memory small."""
    return torch.cat([vae.decode(vae.encode(clip)) for clip in video.split(1)])


def pooled_shapes(video: Tensor, values: int) -> Iterator[tuple[int, int, int]]:
    """Shapes t x h x w with at most `values` RGB values, as wide as the budget allows for every t and h."""
    frames, rows, columns = video.shape[2:]
    for t in range(1, frames + 1):
        for h in range(1, rows + 1):
            w = min(columns, values // (3 * t * h))
            if w and 1 / STRETCH <= (w / columns) / (h / rows) <= STRETCH:
                yield t, h, w


def best_pooling(video: Tensor, values: int) -> dict[str, object]:
    """The pooling and enlargement with the highest PSNR on `video`."""
    found = []
    for shape in pooled_shapes(video, values):
        pooled = adaptive_avg_pool3d(video, shape)
        for mode in ("nearest", "trilinear"):
            enlarged = interpolate(pooled, size=video.shape[2:], mode=mode)
            found.append({"psnr": psnr(enlarged, video), "shape": shape, "enlarged": mode})
    return max(found, key=lambda one: one["psnr"])


@torch.no_grad()
def measure(path: Path, spec: Spec, vae: VaeModule, untrained: VaeModule) -> dict[str, object]:
    """All numbers of one file."""
    video = read_clips(path, spec)
    values = math.prod(vae.latent_shape(video.shape)[1:])
    return {
        "file": path.name,
        "clips": len(video),
        "values_per_clip": values,
        "pixel_values_per_clip": video[0].numel(),
        "VAE": psnr(rebuilt(vae, video), video),
        "untrained": psnr(rebuilt(untrained, video), video),
        "pooling": best_pooling(video, values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder whose vae stage was trained")
    parser.add_argument("files", type=Path, nargs="+", help="videos that were held out of its training")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        run = RunFolder.open(arguments.run)
        spec, vae = run.load_spec(), load_vae(run)
        rows = [measure(path, spec, vae, build_vae(spec).eval()) for path in arguments.files]
    except UserError as error:
        sys.exit(f"{error.message}\n{error.hint or ''}".rstrip())
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        pooling = row["pooling"]
        shape = "x".join(map(str, pooling["shape"]))
        print(
            f"{row['file']}: {row['clips']} clips of {row['pixel_values_per_clip']:,} values, "
            f"{row['values_per_clip']:,} as latents\n"
            f"  VAE            {row['VAE']:.2f} dB\n"
            f"  untrained        {row['untrained']:.2f} dB\n"
            f"  average pooling  {pooling['psnr']:.2f} dB ({shape} RGB, {pooling['enlarged']})\n"
            f"  gain             {row['VAE'] - pooling['psnr']:+.2f} dB"
        )


if __name__ == "__main__":
    main()
