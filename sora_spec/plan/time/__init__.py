"""Seconds: a roofline over ops, messages between ranks, the optimiser."""
