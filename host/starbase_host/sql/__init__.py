"""The numbered migrations of the host's own tables."""
