"""The replicas and the plugin's own tables."""
