"""Measurements of the shipped product beside its peers: `make bench`. docs/performance.md has what they found."""
