"""The planner in the terminal. It shows what `sora_spec.plan` computes and holds no maths of its own."""
