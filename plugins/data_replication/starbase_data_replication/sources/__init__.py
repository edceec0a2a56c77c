"""The dialects: one room each, with the same files, behind the protocols in `protocols`."""
