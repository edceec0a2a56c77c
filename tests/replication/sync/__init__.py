"""Syncs, and the floor that they rest on."""
