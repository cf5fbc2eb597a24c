"""Other jobs than the one asked: what would fit, what is fastest, sweeps and their best row."""
