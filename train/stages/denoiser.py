"""The denoiser stage: the network learns to undo noise in the latents of a frozen VAE.

Legend: `B` clips of a micro-batch, `C F H W` one clip's latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sora_spec.builders.denoiser import build_denoiser
from sora_spec.builders.diffusion.losses import build_loss
from sora_spec.builders.diffusion.noise import NoiseStream
from sora_spec.builders.diffusion.samplers import Condition, sample
from sora_spec.builders.diffusion.torch_arrays import TorchArrays
from sora_spec.builders.vae.from_spec import VaeModule
from sora_spec.builders.weights.digest import vae_digest
from sora_spec.builders.weights.start import load_start
from sora_spec.builders.weights.vae_run import load_named_vae, load_vae
from sora_spec.disk.run_folder import RunFolder
from sora_spec.language.abilities import lacks
from sora_spec.language.schema.condition import ClassCondition, NoCondition, TextCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.language.shapes import derive_shapes
from sora_spec.recipe.training import SHOWN_SAMPLES
from sora_spec.train.batch import Batch, to_device
from sora_spec.train.captions import CaptionSource
from sora_spec.train.data.clips import open_clips
from sora_spec.train.data.picture import Framing
from sora_spec.train.latent_source import LatentSource
from sora_spec.train.pictures import tile_clips
from sora_spec.train.ranks import Cut, Ranks, apply_ranks
from sora_spec.train.recompute import recompute_blocks
from sora_spec.train.settings import stage_settings
from sora_spec.train.streams import normal, seeded, stream
from sora_spec.train.task import Terms
from sora_spec.video import to_uint8, write_contact_sheet, write_mp4


class DenoiserTask:
    """See `Task`."""

    measures = False

    def __init__(
        self, spec: Spec, run: RunFolder | None, ranks: Ranks, fresh: bool = True, lacking: bool = False
    ) -> None:
        assert not lacks(spec, "train"), "refused before this is imported"
        self.spec, self.ranks = spec, ranks
        self.settings = stage_settings(spec, "denoiser")
        self.shapes = derive_shapes(spec)
        centre = spec.train.crop == "center"
        framing = Framing(spec.clip.height, spec.clip.width, flip=spec.train.flip, center=centre)
        self.dataset = open_clips(spec, self.settings.data, framing, spec.clip.frames)
        self.captions = self.text_digest = None
        if isinstance(spec.condition, TextCondition):
            self.captions = CaptionSource.open(spec.condition, ranks.device)
            self.text_digest = self.captions.digest()
            if ranks.is_main:
                self.captions.warn_of_cut(self.dataset.captions or ())
        own = run is not None and run.stage("vae").latest() is not None
        self.vae: VaeModule = load_vae(run, lacking=lacking) if run and own else load_named_vae(spec)
        self.vae_digest = vae_digest(self.vae)
        self.vae.to(ranks.device)
        with seeded(spec.train.seed, "denoiser"):
            self.module = build_denoiser(spec)
        if fresh:
            load_start(self.module, spec)
        self.null_label = self.module.null_label
        recompute_blocks(self.module.blocks, spec.train.recompute)
        apply_ranks(self.module, spec, self.settings.own.precision, ranks, Cut(parts=tuple(self.module.blocks)))
        self.source = LatentSource(self.vae, spec.train.seed, ranks.device)
        self.loss = build_loss(spec)
        self.loss.tables(ranks.device)  # made now: a copy to the device in the first step would wait for it

    def terms(self, batch: Batch, step: int, positions: Sequence[int]) -> Terms:
        """See `Task.terms`. Times and dropped conditions are drawn for the global batch, noise for each sample."""
        seed, device, size = self.settings.train.seed, self.ranks.device, self.settings.own.batch
        chosen = torch.tensor(list(positions))
        samples = [step * size + position for position in positions]
        latents = self.source.latents(batch, samples)  # (B, C, F, H, W)
        time = self.loss.draw_time(size, stream(seed, "time", step))[chosen]  # (B,)
        noise = normal(seed, "noise", samples, latents.shape[1:])  # (B, C, F, H, W)
        network = partial(self._denoise, condition=self._condition(batch, step, chosen))
        terms = self.loss.terms(network, latents, to_device(time, device), to_device(noise, device))
        return {name: value.mean() if name == "loss" else value.detach().mean() for name, value in terms.items()}

    def _denoise(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.module(x, time, *condition.inputs())

    def _condition(self, batch: Batch, step: int, chosen: Tensor) -> Condition:
        """Labels or captions, some of them replaced by what stands for none; empty without a condition."""
        condition, labels = self.spec.condition, batch.labels
        if self.captions is not None:
            return self.captions.features(batch.captions, self._dropped(step, chosen), self.module.null_context)
        if not isinstance(condition, ClassCondition):
            return Condition()
        if condition.dropout > 0:
            assert self.null_label is not None
            labels = torch.where(self._dropped(step, chosen), self.null_label, labels)
        return Condition(to_device(labels, self.ranks.device))

    def _dropped(self, step: int, chosen: Tensor) -> Tensor:
        """Which samples `chosen` of the global batch go without their condition, (B,) bool."""
        condition = self.spec.condition
        assert not isinstance(condition, NoCondition)
        generator = stream(self.settings.train.seed, "dropout", step)
        return torch.rand(self.settings.own.batch, generator=generator)[chosen] < condition.dropout

    def held(self) -> list[Tensor]:
        """See `Task.held`."""
        held = [*self.vae.parameters(), *self.vae.buffers(), *self.loss.tables(self.ranks.device)]
        return held if self.captions is None else [*held, *self.captions.encoder.state_dict().values()]

    def describe(self) -> dict[str, str]:
        """See `Task.describe`."""
        shapes, text = self.shapes, dict[str, str]()
        if self.captions is not None:
            encoder, condition = self.captions.encoder, self.captions.condition
            count = sum(p.numel() for p in encoder.parameters())
            text["text encoder"] = f"{condition.encoder}, {count:,} parameters in {condition.precision}, frozen"
        return {
            "network": f"{sum(p.numel() for p in self.module.parameters()):,} parameters",
            "VAE": f"{self.spec.vae.kind}, {sum(p.numel() for p in self.vae.parameters()):,} parameters, frozen",
            **text,
            "clip": f"{shapes.frames} frames of {shapes.height}x{shapes.width} at {self.spec.clip.fps:g} fps",
            "latents": "x".join(map(str, shapes.latent)) + " (C F H W)",
            "tokens": f"{shapes.tokens:,} per clip",
        }

    @torch.no_grad()
    def show(self, path: Path) -> None:
        """Generate a few clips with the spec's sampler: one row each in a PNG; video also as an mp4 beside it."""
        xp = TorchArrays(self.ranks.device)
        prompts = self._prompts()
        count = len(prompts) or SHOWN_SAMPLES
        noise = NoiseStream(self.settings.train.seed, range(count), self.shapes.latent)
        condition = self._shown(prompts)
        initial = xp.from_host(noise.draw())
        self.module.eval()
        latents = sample(self.spec, self.module, initial, condition, lambda: xp.from_host(noise.draw()), xp)
        self.module.train()
        if not self.ranks.is_main:
            return
        clips = [to_uint8(video.float().cpu().numpy()) for video in self.vae.decode(latents)]
        write_contact_sheet(path.with_suffix(".png"), clips, texts=prompts)
        if self.spec.clip.frames > 1:
            comment = "\n".join(prompts) or None
            write_mp4(path.with_suffix(".mp4"), tile_clips(clips), self.spec.clip.fps, comment=comment)

    def _prompts(self) -> Sequence[str]:
        """What the sample grid shows: `train.prompts`, else the first captions of the data; nothing without text."""
        if self.captions is None:
            return ()
        asked = self.settings.train.prompts
        return asked or list(dict.fromkeys(self.dataset.captions or ()))[:SHOWN_SAMPLES]

    def _shown(self, prompts: Sequence[str]) -> Condition:
        """The condition of a sample grid."""
        classes, captions = self.spec.condition, self.captions
        if captions is not None:
            null = captions.null(len(prompts), self.module.null_context)
            return replace(captions.features(prompts), null=null)
        if isinstance(classes, ClassCondition):
            trained = min(len(self.dataset.classes or ()) or classes.classes, classes.classes)
            return Condition(torch.arange(SHOWN_SAMPLES, device=self.ranks.device) % trained)
        return Condition()

    def finish(self, kept: Path, step: int, stopping: Callable[[], bool]) -> bool:
        """Nothing is left to measure."""
        return True
