"""When runs begin, how they end, and what is recorded of them."""
