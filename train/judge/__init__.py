"""Judges of generated clips: what they show, how they spread and move, and how far they are from real ones."""
