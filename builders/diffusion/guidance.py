"""The network as a sampler sees it: classifier-free guidance (arXiv 2207.12598) and the output split applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sora_spec.builders.diffusion.arrays import Array, Arrays, Network
from sora_spec.builders.diffusion.condition import Condition
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
    condition: Condition
    null: Condition | None
    """Set exactly when the network is guided."""
    scale: float
    channels: int
    progress: Callable[[int], object] | None

    def __call__(self, latents: Array, time: float) -> tuple[Array, Array]:
        """Prediction (B, C, F, H, W) and what the network returned beyond it, (B, C, F, H, W) or (B, 0, F, H, W)."""
        output = self._evaluate(latents, time) if self.null is None else self._evaluate_both(latents, time, self.null)
        C = latents.shape[1]
        if self.progress is not None:
            self.progress(1)
        return output[:, :C], output[:, C:]

    def _evaluate(self, latents: Array, time: float) -> Array:
        output = self.network(latents, self.xp.full(time, latents), *self.condition.inputs())
        return self.xp.cast(output, latents)

    def _evaluate_both(self, latents: Array, time: float, null: Condition) -> Array:
        B, g = latents.shape[0], self.channels
        doubled = self.xp.concat([latents, latents], 0)  # (2B, C, F, H, W), conditional half first
        condition = self.condition.beside(null, self.xp).inputs()
        output = self.xp.cast(self.network(doubled, self.xp.full(time, doubled), *condition), latents)
        conditional, unconditional = output[:B], output[B:]
        start = unconditional[:, :g]
        guided = start + self.scale * (conditional[:, :g] - start)
        return self.xp.concat([guided, conditional[:, g:]], 1)


def build_guided(
    spec: Spec,
    network: Network,
    latents: Array,
    condition: Condition,
    xp: Arrays,
    progress: Callable[[int], object] | None = None,
) -> GuidedNetwork:
    """The guided network of `spec` for samples of the batch and shape of `latents`.

    An empty condition asks for unconditional samples: a conditional network then gets what stands for none throughout.

    Raises UserError: guidance or unconditional sampling without a trained null label, or of a text without `null`.
    """
    sampler = spec.sampler
    channels = min(sampler.guidance_channels or latents.shape[1], latents.shape[1])
    null = None
    if isinstance(spec.condition, NoCondition):
        condition = Condition()
    elif condition.given is None:
        condition = condition.null or _null_labels(spec, latents, xp)
    elif is_guided(spec):
        null = condition.null or _null_labels(spec, latents, xp)
    return GuidedNetwork(network, xp, condition, null, sampler.guidance, channels, progress)


def _null_labels(spec: Spec, latents: Array, xp: Arrays) -> Condition:
    """The label that training puts in place of a dropped one: row `classes` of the table."""
    condition = spec.condition
    if isinstance(condition, TextCondition):
        raise UserError(
            "sampler.guidance: guiding a text-conditional network needs the features of the empty prompt",
            "pass them as `Condition.null`, or set `sampler.guidance=1` and pass the features of a prompt",
        )
    assert isinstance(condition, ClassCondition)
    if condition.dropout == 0:
        raise UserError(
            "condition.dropout is 0, so there is no trained null label to sample or guide with",
            "set `sampler.guidance=1` and give a label, or train with `condition.dropout` above 0",
        )
    return Condition(xp.labels(condition.classes, latents))
