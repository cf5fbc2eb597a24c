"""Devices: the table, the machine at hand, and its measured rates."""
