"""Comparing, verifying and reconciling."""
