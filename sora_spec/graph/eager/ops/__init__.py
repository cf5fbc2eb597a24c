"""The ops that the builders' modules run, on tensors without values. Named and shaped like PyTorch's."""
