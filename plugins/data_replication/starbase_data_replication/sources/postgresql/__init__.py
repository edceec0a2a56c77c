"""PostgreSQL as a dialect: settings, types, source."""
