"""What a batch of samples is steered by, over numpy and torch alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sora_spec.builders.diffusion.arrays import Array, Arrays


@dataclass(frozen=True)
class Condition:
    """A label or a text for each of `B` samples; what the model does not take is None, and all of it of no condition.

    Without labels and text, samples are unconditional.
    """

    labels: Array | None = None
    """(B,) int64."""
    tokens: Array | None = None
    """A text's features, (B, tokens, width)."""
    mask: Array | None = None
    """(B, tokens): 0 where `tokens` is padding, which is passed over."""
    pooled: Array | None = None
    """A text's one feature, (B, width)."""
    null: Condition | None = None
    """What stands for no condition where that is no label: features of the empty prompt, or the network's own table
    (`Denoiser.null_context`)."""

    @property
    def given(self) -> Array | None:
        """Labels or features, whichever there are; None of unconditional samples."""
        return next((part for part in (self.labels, self.tokens, self.pooled) if part is not None), None)

    def inputs(self) -> tuple[Array | None, ...]:
        """What the network takes after latents and time: `given`, and the mask where there is one."""
        return (self.given,) if self.mask is None else (self.given, self.mask)

    def each(self, change: Callable[[Array], Array]) -> Condition:
        """`change` of every array."""

        def changed(part: Array | None) -> Array | None:
            return None if part is None else change(part)

        null = None if self.null is None else self.null.each(change)
        return Condition(changed(self.labels), changed(self.tokens), changed(self.mask), changed(self.pooled), null)

    def beside(self, other: Condition, xp: Arrays) -> Condition:
        """The samples of both, `other`'s last, in what this one has; without a mask `other` has this one's."""

        def joined(mine: Array | None, others: Array | None) -> Array | None:
            return None if mine is None else xp.concat([mine, others], 0)

        assert self.mask is not None or other.mask is None, "one of the two masks would be lost"
        mask = self.mask if other.mask is None else other.mask
        return Condition(
            joined(self.labels, other.labels),
            joined(self.tokens, other.tokens),
            joined(self.mask, mask),
            joined(self.pooled, other.pooled),
        )
