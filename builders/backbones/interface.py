"""What every denoising network offers to training, export and generation."""

from __future__ import annotations

from torch import Tensor, nn


class Denoiser(nn.Module):
    """`forward(latents, time, condition, mask)`: latents (B, C, F, H, W), time (B,) → (B, Cout, F, H, W).

    `time` is what the objective uses, 0..steps−1 or [0, 1]. `condition` is (B,) int64 labels, (B, width) pooled
    text, (B, M, width) text tokens, or None. `mask` (B, M), beside text tokens only, is zero where a token is padding
    and must not be attended to; None attends to all. Cout is 2·C when a variance is predicted beside the mean (mean
    first), else C. The output has the dtype of `latents`; inside, everything is cast to the dtype of the weights, save
    for the time, which stays float32 until it is a sinusoid. Whoever casts the inputs of modules from outside (FSDP2's
    `cast_forward_inputs`) must leave the root's alone: bfloat16 knows no step 999.

    F may differ from the spec's; H and W may not.
    """

    blocks: nn.ModuleList
    """The repeated units: what sharding wraps and recomputation repeats."""

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", if labels are the condition and one was trained."""
        return None

    @property
    def null_context(self) -> Tensor | None:
        """The text tokens (M, width) that mean "no prompt", if the network keeps them."""
        return None

    def forward(
        self, latents: Tensor, time: Tensor, condition: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Denoise; see the class."""
        raise AssertionError("a denoiser defines its forward")
