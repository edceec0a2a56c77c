"""One sync: what is copied, from where to where, and when the floor may rise."""
