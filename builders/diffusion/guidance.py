"""The network as a sampler sees it: classifier-free guidance (arXiv 2207.12598) and the output split applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sora_spec.builders.diffusion.arrays import Array, Arrays, Network
from sora_spec.errors import UserError
from sora_spec.language.schema.condition import ClassCondition, NoCondition, TextCondition
from sora_spec.language.schema.spec import Spec
from sora_spec.recipe.sampling import is_guided


@dataclass(frozen=True)
class GuidedNetwork:
    """A call of the network at one time, guided where asked.

    Guidance moves the first `channels` channels to u + s·(c − u). The rest, the variance among them, is the conditional
    half's: DiT and SiT guide three of four latent channels, and their published FIDs depend on it.
    """

    network: Network
    xp: Arrays
    labels: Array | None
    null_labels: Array | None
    """Set exactly when the network is guided."""
    scale: float
    channels: int
    progress: Callable[[int], object] | None

    def __call__(self, latents: Array, time: float) -> tuple[Array, Array]:
        """Prediction (B, C, F, H, W) and what the network returned beyond it, (B, C, F, H, W) or (B, 0, F, H, W)."""
        output = self._evaluate(latents, time) if self.null_labels is None else self._evaluate_both(latents, time)
        C = latents.shape[1]
        if self.progress is not None:
            self.progress(1)
        return output[:, :C], output[:, C:]

    def _evaluate(self, latents: Array, time: float) -> Array:
        output = self.network(latents, self.xp.full(time, latents), self.labels)
        return self.xp.cast(output, latents)

    def _evaluate_both(self, latents: Array, time: float) -> Array:
        B, g = latents.shape[0], self.channels
        doubled = self.xp.concat([latents, latents], 0)  # (2B, C, F, H, W), conditional half first
        labels = self.xp.concat([self.labels, self.null_labels], 0)
        output = self.xp.cast(self.network(doubled, self.xp.full(time, doubled), labels), latents)
        conditional, unconditional = output[:B], output[B:]
        start = unconditional[:, :g]
        guided = start + self.scale * (conditional[:, :g] - start)
        return self.xp.concat([guided, conditional[:, g:]], 1)


def build_guided(
    spec: Spec,
    network: Network,
    latents: Array,
    labels: Array | None,
    xp: Arrays,
    progress: Callable[[int], object] | None = None,
    null: Array | None = None,
) -> GuidedNetwork:
    """The guided network of `spec` for samples of the batch and shape of `latents`.

    `labels` of None asks for unconditional samples: a class-conditional network then gets its null label throughout.
    `null`: what stands for no condition, one for each sample, where that is not a label: the features of the empty
    prompt, or the network's own table (`Denoiser.null_context`).

    Raises:
        UserError: guidance or unconditional sampling without a trained null label, or a text condition without `null`.
    """
    sampler = spec.sampler
    channels = min(sampler.guidance_channels or latents.shape[1], latents.shape[1])
    null_labels = None
    if isinstance(spec.condition, NoCondition):
        labels = None
    elif labels is None:
        labels = _null_labels(spec, latents, xp) if null is None else null
    elif is_guided(spec):
        null_labels = _null_labels(spec, latents, xp) if null is None else null
    return GuidedNetwork(network, xp, labels, null_labels, sampler.guidance, channels, progress)


def _null_labels(spec: Spec, latents: Array, xp: Arrays) -> Array:
    """The label that training puts in place of a dropped one: row `classes` of the table."""
    condition = spec.condition
    if isinstance(condition, TextCondition):
        raise UserError(
            "sampler.guidance: guiding a text-conditional network needs the features of the empty prompt",
            "pass them as `null`, or set `sampler.guidance=1` and pass the features of a prompt",
        )
    assert isinstance(condition, ClassCondition)
    if condition.dropout == 0:
        raise UserError(
            "condition.dropout is 0, so there is no trained null label to sample or guide with",
            "set `sampler.guidance=1` and give a label, or train with `condition.dropout` above 0",
        )
    return xp.labels(condition.classes, latents)
