"""What a body of `configure` means."""
