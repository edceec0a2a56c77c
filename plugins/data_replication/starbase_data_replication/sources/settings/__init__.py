"""Reading a sourceConfig, whatever the dialect: connection strings, variables, secrets, TLS."""
