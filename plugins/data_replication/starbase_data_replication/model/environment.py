"""Names of environment variables that more than one package knows."""

from __future__ import annotations

# Its value decrypts every stored secret.
SECRET_KEY = "STARBASE_SECRET_KEY"
