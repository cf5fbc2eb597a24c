"""Graphs of components that have no lowering: recorded from their real modules, and kept on disk."""
