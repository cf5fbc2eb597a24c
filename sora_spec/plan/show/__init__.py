"""A plan for people and scripts: report, values, tree, pictures."""
