"""Measurements of the shipped product beside its peers: `make bench`. The results: docs/explanation/performance.md."""
