"""Labels → noise → latents → frames, over any executor. A bundle generates without torch.

Latents stay on the denoiser's device while they are sampled: noise and labels go up, the last step's latents come down.

Sample i starts from noise keyed by (seed, i), so it is the same clip whatever the batch, and eager and exported models
start from the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.builders.diffusion.samplers import Array, Condition, Step, sampling_steps
from sora_spec.builders.vae.tiling import NUMPY as NUMPY_CANVASES
from sora_spec.builders.vae.tiling import in_tiles
from sora_spec.compile.bundle.contract import condition_ports
from sora_spec.compile.bundle.manifest import Precision
from sora_spec.compile.run.executors.stage import Stage
from sora_spec.errors import UserError
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes
from sora_spec.language.tiles import cut_of
from sora_spec.recipe.sampling import default_batch as default_batch
from sora_spec.recipe.sampling import frames_per_decode
from sora_spec.video import to_uint8


@dataclass(frozen=True)
class Clip:
    """One generated clip."""

    index: int
    """Number of the sample within its seed."""
    label: int | None
    frames: NDArray[np.uint8]
    """(T, Y, X, 3)"""


@dataclass
class Pipeline:
    """A spec's sampler over two loaded stages."""

    spec: Spec
    denoiser: Stage
    decoder: Stage
    precision: Precision = "fp32"
    """What both stages compute in. Between them, and in the sampler, everything is fp32."""
    seconds: dict[str, float] = field(default_factory=lambda: {"denoiser": 0.0, "vae_decoder": 0.0})
    """Wall time of sampling and of decoding so far."""

    def generate(
        self,
        labels: Sequence[int | None],
        seed: int = 0,
        batch: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Clip]:
        """One clip for each of `labels` (None: unconditional), in order, `batch` at a time.

        `progress` is called with the number of clips times network calls just done.
        """
        for indices in _batches(labels, batch or default_batch(self.spec)):
            part = [labels[index] for index in indices]
            latents = self.sample(indices, _labelled(part), seed, progress)
            with self.decoder.using():
                for index, label, clip in zip(indices, part, latents, strict=True):
                    video = self.decode(clip[None])[0]
                    self._check_finite(index, video)
                    yield Clip(index, label, to_uint8(video))

    def sample(
        self,
        indices: Sequence[int],
        condition: Condition,
        seed: int,
        progress: Callable[[int], object] | None = None,
    ) -> NDArray[np.float32]:
        """Latents (B, C, F, H, W) of the samples `indices` of `seed`, on the host."""
        started = time.perf_counter()
        with self.denoiser.using():
            *_, last = self.steps(indices, condition, seed, progress)
            found = self.denoiser.xp.to_host(last.latents)
        self.seconds["denoiser"] += time.perf_counter() - started
        return found

    def steps(
        self,
        indices: Sequence[int],
        condition: Condition,
        seed: int,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Step]:
        """The steps that `sample` takes, with latents on the denoiser's device (`denoiser.xp`); see `Step`.

        A noisy sampler's noise is drawn on the host, so that a clip is the same everywhere, and goes up once a step.
        """
        stream = NoiseStream(seed, indices, derive_shapes(self.spec).latent)
        advance = None if progress is None else lambda _: progress(len(indices))
        with self.denoiser.using():
            xp = self.denoiser.xp

            def draw() -> Array:
                return xp.from_host(stream.draw())

            yield from sampling_steps(self.spec, self._network, draw(), condition.each(xp.from_host), draw, xp, advance)

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Video (B, 3, T, Y, X) of latents (B, C, F, H, W).

        Where the VAE sees one frame at a time, `export.decode_frames` in a pass; in tiles where `vae.tiling` says so.
        """
        started = time.perf_counter()
        frames = latents.shape[2]
        step = frames_per_decode(self.spec, frames)
        with self.decoder.using():
            video = self._decode_piece(latents[:, :, :step])
            if step < frames:
                first, shape = video, list(video.shape)
                shape[2] = frames
                video = np.empty(shape, first.dtype)
                video[:, :, :step] = first
                for start in range(step, frames, step):
                    video[:, :, start : start + step] = self._decode_piece(latents[:, :, start : start + step])
        self.seconds["vae_decoder"] += time.perf_counter() - started
        return video

    def _decode_piece(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        tiles = cut_of(self.spec)
        if tiles is None:
            return self._decode_tile(latents)
        return in_tiles(self._decode_tile, latents, tiles, (1, self.spec.vae.compression.space), NUMPY_CANVASES)

    def _decode_tile(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.decoder.run({"latents": latents})["video"]

    def _network(self, latents: Array, times: Array, *condition: Array | None) -> Array:
        names = [port.name for port in condition_ports(self.spec)]
        given = zip(names, condition, strict=True) if names else ()
        inputs = {"latents": latents, "time": times, **dict(given)}
        return self.denoiser.compute(inputs)["prediction"]

    def _check_finite(self, index: int, video: NDArray[np.float32]) -> None:
        """fp16 ends at 65,504: a network trained in another precision may go beyond, and its clip would be black."""
        if self.precision == "fp16" and not np.isfinite(video).all():
            raise UserError(
                f"clip {index} is not finite: values of the networks are beyond the range of fp16",
                "--precision bf16 has the range of fp32; bundles: sora-spec export RUN --precision bf16",
            )


def _labelled(labels: Sequence[int | None]) -> Condition:
    given = [label for label in labels if label is not None]
    assert len(given) in (0, len(labels)), "a batch is conditional or not"
    return Condition(np.array(given, np.int64) if given else None)


def _batches(labels: Sequence[int | None], size: int) -> Iterator[range]:
    """Numbers of the clips of each batch, which is conditional or not, never both."""
    start = 0
    for stop in range(1, len(labels) + 1):
        whole = stop == len(labels) or stop - start == size
        if whole or (labels[stop] is None) != (labels[start] is None):
            yield range(start, stop)
            start = stop
