"""Following a training run from its files: metrics, checkpoints, sample grids. Imports no torch, numpy or pydantic."""
