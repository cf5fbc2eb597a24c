"""Class labels as vectors (DiT's `LabelEmbedder`)."""

from __future__ import annotations

from torch import Tensor, nn

from sora_spec.language.schema.condition import ClassCondition


class LabelEmbedding(nn.Module):
    """(B,) int64 labels → (B, D).

    Whoever draws the labels drops them for guidance, by setting them to `null_label`: the network stays a function.
    """

    def __init__(self, condition: ClassCondition, width: int) -> None:
        super().__init__()
        self.null_label = condition.classes if condition.dropout > 0 else None
        self.table = nn.Embedding(condition.classes + (self.null_label is not None), width)

    def forward(self, label: Tensor) -> Tensor:
        return self.table(label)
