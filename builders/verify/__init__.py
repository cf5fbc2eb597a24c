"""The planner against PyTorch: traces of the real modules, compared with the model graph op by op."""
