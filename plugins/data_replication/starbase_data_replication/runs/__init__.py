"""Runs: when one is due, one at a time for each name, and how it has ended."""
