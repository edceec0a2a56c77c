"""Tests of the data-replication plugin, by what it can do."""
