"""What a body of `configure` may hold, and whether it holds together."""
