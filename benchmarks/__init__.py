"""Measurements, run by hand: what the host costs, and what its source pays."""
