"""Whether a replica is equal to its source, and repairing it."""
