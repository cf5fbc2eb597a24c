"""Passes over a model graph."""
