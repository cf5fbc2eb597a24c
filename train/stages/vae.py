"""The vae stage: the VAE learns to reconstruct crops; at the end its latents are measured.

Legend: `B` clips of a micro-batch, `T Y X` pixels, `C F H W` latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sora_spec import output
from sora_spec.builders.vae.causal3d import Causal3dModule
from sora_spec.builders.vae.from_spec import build_vae
from sora_spec.builders.vae.losses import VaeLoss
from sora_spec.builders.vae.statistics import LatentStatistics
from sora_spec.builders.weights.vae_run import start_vae
from sora_spec.disk.run_folder import MEASURED_CLIPS
from sora_spec.language.abilities import lacks, vae_to_train
from sora_spec.language.schema.spec import Spec
from sora_spec.language.schema.vae import ImageKlVae
from sora_spec.recipe.training import SHOWN_RECONSTRUCTIONS, vae_crop
from sora_spec.train.batch import Batch, Pixels, to_device
from sora_spec.train.data.clips import FrameCache, open_clips
from sora_spec.train.data.loader import collate
from sora_spec.train.data.picture import Framing
from sora_spec.train.latents import Measuring
from sora_spec.train.ranks import Cut, Ranks, apply_ranks
from sora_spec.train.settings import stage_settings
from sora_spec.train.streams import normal, seeded
from sora_spec.train.task import Terms
from sora_spec.video import to_uint8, write_contact_sheet

_ZOOM = 2.0  # crops are taken at up to twice the scale that just covers the clip


class VaeTask:
    """See `Task`."""

    measures = True

    def __init__(self, spec: Spec, ranks: Ranks, fresh: bool = True) -> None:
        assert not lacks(spec, "train --stage vae"), "refused before this is imported"
        self.settings = stage_settings(spec, "vae")
        self.spec, self.ranks, self.vae = spec, ranks, vae_to_train(spec)
        frames = vae_crop(spec).frames
        self.dataset = open_clips(spec, self.settings.data, _crop_framing(spec), frames, labelled=False)
        with seeded(spec.train.seed, "vae"):
            self.module = build_vae(spec)
        if fresh:
            start_vae(self.module, spec)
        self.loss = VaeLoss(self.vae.training).to(ranks.device)
        apply_ranks(
            self.module, spec, self.settings.own.precision, ranks, Cut(cast_inputs=True, methods=("posterior",))
        )

    def terms(self, batch: Batch, step: int, positions: Sequence[int]) -> Terms:
        """See `Task.terms`."""
        assert isinstance(batch, Pixels), "a VAE learns from pixels"
        samples = [step * self.settings.own.batch + position for position in positions]
        video = batch.video(self.ranks.device)  # (B, 3, T, Y, X)
        return self.loss(self.module, video, self._noise(video, samples))

    def _noise(self, video: Tensor, samples: Sequence[int]) -> Tensor:
        shape = self.module.latent_shape(video.shape)[1:]
        return to_device(normal(self.settings.train.seed, "posterior", samples, shape), video.device)

    vae_digest = text_digest = None

    def held(self) -> list[Tensor]:
        """See `Task.held`."""
        return [*self.loss.parameters(), *self.loss.buffers()]

    def describe(self) -> dict[str, str]:
        """See `Task.describe`."""
        crop = self.dataset
        return {
            "VAE": f"{self.vae.kind}, {sum(p.numel() for p in self.module.parameters()):,} parameters",
            "crop": f"{crop.frames} frames of {crop.framing.height}x{crop.framing.width} at {self.spec.clip.fps:g} fps",
        }

    @torch.no_grad()
    def show(self, path: Path) -> None:
        """Write a PNG with a row of frames and, below it, the same frames reconstructed."""
        video = self._videos(range(SHOWN_RECONSTRUCTIONS))
        rebuilt, _, _ = self.module(video, torch.zeros_like(self._noise(video, range(SHOWN_RECONSTRUCTIONS))))
        if not self.ranks.is_main:
            return
        pairs = zip(video.cpu().numpy(), rebuilt.float().cpu().numpy(), strict=True)
        write_contact_sheet(path.with_suffix(".png"), [to_uint8(clip) for pair in pairs for clip in pair])

    @torch.no_grad()
    def finish(self, kept: Path, step: int, stopping: Callable[[], bool]) -> bool:
        """Measure mean and standard deviation of the latents over training clips, as the denoiser will see them."""
        statistics = LatentStatistics(self.module.channels)
        measuring = Measuring(
            kept,
            step,
            self.dataset.fingerprint(),
            min(MEASURED_CLIPS, 4 * len(self.dataset)),
            alone=self.ranks.world == 1,
            writes=self.ranks.is_main,
        )
        if not measuring.run(statistics, lambda number: self.module.posterior(self._videos([number])), stopping):
            return False
        mean, std = statistics.result()
        if isinstance(self.module, Causal3dModule):
            self.module.set_latent_statistics(mean, std)
        elif isinstance(self.vae, ImageKlVae):
            output.note(f"latents have standard deviation {std.mean():.4g}; set vae.scale={1 / std.mean():.5g}")
        return True

    def _videos(self, numbers: Sequence[int]) -> Tensor:
        """Whole training clips (B, 3, T, Y, X), as the denoiser stage takes them: scaled to cover, not zoomed."""
        framing = Framing(self.spec.clip.height, self.spec.clip.width, center=self.spec.train.crop == "center")
        whole = replace(self.dataset, framing=framing, cache=FrameCache(0))
        return collate([whole[number] for number in numbers]).video(self.ranks.device)


def _crop_framing(spec: Spec) -> Framing:
    crop = vae_to_train(spec).training.crop
    if crop is None:
        return Framing(spec.clip.height, spec.clip.width, flip=spec.train.flip, center=spec.train.crop == "center")
    zoom = _ZOOM * max(1.0, min(spec.clip.height, spec.clip.width) / crop)
    return Framing(crop, crop, flip=spec.train.flip, zoom=zoom)
