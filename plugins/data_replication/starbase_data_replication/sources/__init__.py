"""The dialects: one room each, with the same files, behind the protocol in `base`."""
