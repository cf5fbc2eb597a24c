"""One vector for a whole prompt (OpenDiT's `y_embedder.output_projection`)."""

from __future__ import annotations

from torch import Tensor, nn

from sora_spec.schema.condition import TextCondition


class PooledText(nn.Module):
    """(B, width) pooled features of the frozen encoder → (B, D). Guidance uses the features of the empty prompt."""

    def __init__(self, condition: TextCondition, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(condition.width, width)

    def forward(self, pooled: Tensor) -> Tensor:
        """Project, in the dtype of the weights."""
        return self.proj(pooled.to(self.proj.weight.dtype))
