"""What the plugin keeps in the internal SQLite database: its own tables, and the replicas."""
