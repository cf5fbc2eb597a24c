"""Clips from disk: finding files, probing them, frame-accurate decoding, and the order in which they are seen."""
