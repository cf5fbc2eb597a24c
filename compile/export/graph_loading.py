"""A run folder, or a spec with weights → the networks that generating runs, in fp32 on the CPU."""

from __future__ import annotations

from typing import NamedTuple, assert_never

from sora_spec.builders.denoiser import Denoiser
from sora_spec.builders.vae.from_spec import VaeModule
from sora_spec.builders.weights.digest import warn_of_other_vae
from sora_spec.builders.weights.run import draw_denoiser, load_denoiser, load_named_denoiser
from sora_spec.builders.weights.vae_run import draw_vae, load_named_vae, load_vae
from sora_spec.compile.bundle.manifest import Source
from sora_spec.compile.export.graph_modules import DecoderGraph, DenoiserGraph, GraphModule
from sora_spec.compile.run.executors.spec_source import SpecSource
from sora_spec.disk.checkpoints import pick_weights
from sora_spec.disk.run_folder import RunFolder
from sora_spec.recipe.parts import GraphName

_SEED = 0


class Networks(NamedTuple):
    """A source's networks, and where their weights come from."""

    denoiser: Denoiser
    vae: VaeModule
    origin: Source

    def graph(self, name: GraphName) -> GraphModule:
        """The module of one part, as it is exported and run."""
        match name:
            case "text_encoder":
                raise AssertionError("a run names its text encoder and does not hold it")
            case "denoiser":
                return DenoiserGraph(self.denoiser)
            case "vae_decoder":
                return DecoderGraph(self.vae)
            case unknown:
                assert_never(unknown)


def load_networks(source: RunFolder | SpecSource, ema: bool) -> Networks:
    """The networks of `source`; of a run with their moving averages, unless `ema` is off.

    Raises UserError where weights are missing, damaged, or do not fit.
    """
    if isinstance(source, SpecSource):
        spec, drawn = source.load_spec(), source.drawn()
        denoiser = draw_denoiser(spec, _SEED) if "denoiser" in drawn else load_named_denoiser(spec)
        vae = draw_vae(spec, _SEED) if "vae_decoder" in drawn else load_named_vae(spec)
        return Networks(denoiser, vae, Source(run=spec.name, step=None, ema=False, random=drawn))
    weights = pick_weights(source, "denoiser", ema)
    vae = load_vae(source, lacking=not ema)
    warn_of_other_vae(source, vae)
    denoiser = load_denoiser(source, ema, weights)
    step, averaged = (None, False) if weights is None else (weights.step, weights.averaged)
    return Networks(denoiser, vae, Source(run=source.path.resolve().name, step=step, ema=averaged))
