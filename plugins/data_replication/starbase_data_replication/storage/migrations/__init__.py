"""The numbered migrations of the plugin's tables."""
