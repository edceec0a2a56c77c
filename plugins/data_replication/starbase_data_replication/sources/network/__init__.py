"""The way to a source: which hosts are allowed, pools, and the bytes that come."""
