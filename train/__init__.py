"""Training: data, the loop, checkpoints, and how precision and ranks are applied from outside."""
