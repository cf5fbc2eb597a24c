"""PyTorch on tensors without values: its rules for strides, saved tensors, the backward pass and recomputation."""
